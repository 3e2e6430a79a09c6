/* Kernels as libraries of intrinsics have them (vednn, NEC's examples): packed floats, masks,
 * gathers, compression, reductions, refined approximations. For test_sim_kernels.py. */
#include <velintrin.h>
typedef long i64; typedef unsigned long u64;
#define VL(i,n) ((n)-(i)<256?(n)-(i):256)
/* leaky relu on packed floats with a pair of masks */
void leaky(float*x,float*y,i64 n,float a){u64 aa=_vel_pack_f32a(&a);for(i64 i=0;i<n;i+=512){
  int vl=VL(i/2,n/2);__vr v=_vel_vld_vssl(8,x+i,vl);__vm512 m=_vel_pvfmkslt_Mvl(v,vl);
  __vr w=_vel_pvfmul_vsvl(aa,v,vl);_vel_vst_vssl(_vel_vmrgw_vvvMl(v,w,m,vl),8,y+i,vl);}}
/* clamp by packed min/max */
void clamp(float*x,float*y,i64 n,float lo,float hi){u64 l=_vel_pack_f32a(&lo),h=_vel_pack_f32a(&hi);
  for(i64 i=0;i<n;i+=512){int vl=VL(i/2,n/2);__vr v=_vel_vld_vssl(8,x+i,vl);
  v=_vel_pvfmax_vsvl(l,v,vl);v=_vel_pvfmin_vsvl(h,v,vl);_vel_vst_vssl(v,8,y+i,vl);}}
/* with a mask of four words, loaded */
void axpy_masked(float*x,float*y,i64 n,u64 bits){
  __vm256 m=_vel_lvm_mmss(_vel_vfmklat_ml(256),0,bits);m=_vel_lvm_mmss(m,1,~bits);
  m=_vel_lvm_mmss(m,2,bits*3);m=_vel_lvm_mmss(m,3,bits>>5);
  for(i64 i=0;i<n;i+=256){int vl=VL(i,n);__vr a=_vel_vldu_vssl(4,x+i,vl),b=_vel_vldu_vssl(4,y+i,vl);
  b=_vel_vfmads_vvvvmvl(b,a,b,m,b,vl);_vel_vstu_vssml(b,4,y+i,m,vl);}}
/* what is positive, one behind another; how many */
i64 keep(double*x,double*y,i64 n){i64 c=0;for(i64 i=0;i<n;i+=256){int vl=VL(i,n);
  __vr v=_vel_vld_vssl(8,x+i,vl);__vm256 m=_vel_vfmkdgt_mvl(v,vl);i64 k=_vel_pcvm_sml(m,vl);
  __vr w=_vel_vcp_vvmvl(v,m,_vel_vbrdd_vsl(0.0,256),vl);
  if(k)_vel_vst_vssl(w,8,y+c,(int)k);c+=k;}return c;}
void spread(double*x,double*y,double*z,int n){__vr v=_vel_vld_vssl(8,x,n);
  __vr d=_vel_vld_vssl(8,y,n);__vm256 m=_vel_vfmkdgt_mvl(d,n);
  _vel_vst_vssl(_vel_vex_vvmvl(v,m,d,n),8,z,n);}
double maxd(double*x,i64 n){__vr v=_vel_vld_vssl(8,x,(int)n);
  return _vel_lvsd_svs(_vel_vfrmaxdfst_vvl(v,(int)n),0);}
float minf(float*x,i64 n){return _vel_lvss_svs(_vel_vfrminslst_vvl(_vel_vldu_vssl(4,x,(int)n),
  (int)n),0);}
i64 sumw(int*x,i64 n){i64 s=0;for(i64 i=0;i<n;i+=256){int vl=VL(i,n);
  s+=(int)_vel_lvsl_svs(_vel_vsumwsx_vvl(_vel_vldlsx_vssl(4,x+i,vl),vl),0);}return s;}
u64 sumwz(unsigned*x,i64 n){return _vel_lvsl_svs(_vel_vsumwzx_vvl(_vel_vldlzx_vssl(4,x,(int)n),
  (int)n),0);}
i64 suml(i64*x,i64 n){return (i64)_vel_lvsl_svs(_vel_vsuml_vvl(_vel_vld_vssl(8,x,(int)n),(int)n),0);
  }
int maxw(int*x,i64 n){return (int)_vel_lvsl_svs(_vel_vrmaxswfstsx_vvl(_vel_vldlsx_vssl(4,
  x,(int)n),(int)n),0);}
u64 bits3(u64*x,i64 n){__vr v=_vel_vld_vssl(8,x,(int)n);
  return _vel_lvsl_svs(_vel_vrand_vvl(v,
  (int)n),0)+3*_vel_lvsl_svs(_vel_vror_vvl(v,(int)n),0)+5*_vel_lvsl_svs(_vel_vrxor_vvl(v,(int)n),0);
  }
/* rows of 16; a transposition by strides */
void rows(double*x,double*y,i64 row,i64 col){__vr v=_vel_vld2d_vssl((u64)row<<16|(u64)col,x,256);
  _vel_vst_vssl(v,8,y,256);}
void transpose(double*x,double*y,i64 n,i64 m){for(i64 i=0;i<n;
  i++)_vel_vst_vssl(_vel_vld_vssl(8,x+i*m,(int)m),8*n,y+i,(int)m);}
/* by indices of 32 bits */
void embed(float*t,int*idx,float*y,int n){__vr i=_vel_vldlzx_vssl(4,idx,n);
  __vr a=_vel_vsfa_vvssl(i,2,(u64)t,n);_vel_vstu_vssl(_vel_vgtu_vvssl(a,0,0,n),4,y,n);}
void hist(i64*h,int*idx,int n){__vr i=_vel_vldlzx_vssl(4,idx,n);
  __vr a=_vel_vsfa_vvssl(i,3,(u64)h,n);__vr v=_vel_vgt_vvssl(a,0,0,n);
  _vel_vsc_vvssl(_vel_vaddul_vsvl(1,v,n),a,0,0,n);}
/* approximations, refined by Newton's steps */
void recip(double*x,double*y,int n){__vr v=_vel_vld_vssl(8,x,n);__vr r=_vel_vrcpd_vvl(v,n);
  for(int k=0;k<3;k++){__vr e=_vel_vfnmsbd_vsvvl(1.0,v,r,n);r=_vel_vfmadd_vvvvl(r,r,e,n);}
  _vel_vst_vssl(r,8,y,n);}
void rsq(float*x,float*y,int n){__vr v=_vel_vldu_vssl(4,x,n);__vr r=_vel_vrsqrts_vvl(v,n);
  for(int k=0;k<2;k++){__vr t=_vel_vfmuls_vvvl(v,r,n);__vr e=_vel_vfnmsbs_vsvvl(1.0f,t,r,n);
  __vr h=_vel_vfmuls_vsvl(0.5f,r,n);r=_vel_vfmads_vvvvl(r,h,e,n);}_vel_vstu_vssl(r,4,y,n);}
/* conversions */
void conv(double*x,i64*y,int*z,float*w,int n){__vr v=_vel_vld_vssl(8,x,n);
  _vel_vst_vssl(_vel_vcvtldrz_vvl(v,n),8,y,n);_vel_vstl_vssl(_vel_vcvtwdsxrz_vvl(v,n),4,z,n);
  _vel_vstu_vssl(_vel_vcvtsd_vvl(v,n),4,w,n);}
void interleave(float*x,float*y,float*z,int n){
  __vr a=_vel_vldu_vssl(4,x,n),b=_vel_vldlzx_vssl(4,y,n);
  _vel_vst_vssl(_vel_vshf_vvvsl(a,b,VE_VSHUFFLE_YUZL,n),8,z,n);}
void less_maximum(float*x,float*y,int n){__vr v=_vel_vldu_vssl(4,x,n);
  float m=_vel_lvss_svs(_vel_vfrmaxsfst_vvl(v,n),0);v=_vel_vfsubs_vvvl(v,_vel_vbrds_vsl(m,n),n);
  _vel_vstu_vssl(v,4,y,n);}
void rotate(u64*x,u64*y,int by,int n){
  _vel_vst_vssl(_vel_vmv_vsvl(by,_vel_vld_vssl(8,x,256),n),8,y,n);}
void shifts(u64*x,u64*y,u64 k,int n){__vr v=_vel_vld_vssl(8,x,n);
  __vr a=_vel_vsll_vvsl(v,k,n),b=_vel_vsrl_vvsl(v,k,n),c=_vel_vsral_vvsl(v,k,n);
  _vel_vst_vssl(_vel_vxor_vvvl(a,_vel_vxor_vvvl(b,c,n),n),8,y,n);
  __vr d=_vel_pvsll_vvsl(v,k,n),e=_vel_pvsra_vvsl(v,k,n);
  _vel_vst_vssl(_vel_pvxor_vvvl(d,e,n),8,y+256,n);}
