/* Programs of kinds that foreign code has, for test_sim_foreign.py. The comment before each has the
 * types of its arguments and result, as in test_sim_programs.py. The host's compiler must give the
 * same bits: what is undefined in C is kept out. */
typedef long long i64; typedef unsigned long long u64;
typedef __int128 i128; typedef unsigned __int128 u128;
#define NOINLINE __attribute__((noinline))
#ifdef __ve__
typedef long double quad;
#elif defined(__SIZEOF_FLOAT128__)
typedef __float128 quad;
#else
typedef long double quad;
#endif
static unsigned reversed32(unsigned x){unsigned r=0;
  for(int i=0;i<32;i++)r|=(x>>i&1)<<(31-i);return r;}

/*: strings p:u */
static u64 my_strlen(const char*s){const char*p=s;while(*p)p++;return (u64)(p-s);}
static int my_strcmp(const unsigned char*a,const unsigned char*b){while(*a&&*a==*b)a++,b++;
  return *a-*b;}
static char*my_strcpy(char*d,const char*s){char*r=d;while((*d++=*s++));return r;}
static char*my_strchr(char*s,int c){for(;;s++){if(*s==(char)c)return s;if(!*s)return 0;}}
static void my_reverse(char*s,u64 n){for(u64 i=0,j=n;i<j--;i++){char t=s[i];s[i]=s[j];s[j]=t;}}
u64 strings(char*p){p[100]=0;p[200]=0;u64 n=my_strlen(p);my_reverse(p,n);char b[128];my_strcpy(b,p);
char*c=my_strchr(b,'A');u64 r=n*1000+(c?(u64)(c-b):777);
  r+=(u64)(i64)my_strcmp((unsigned char*)p,(unsigned char*)p+101);
return r+(u64)my_strcmp((unsigned char*)b,(unsigned char*)p);}

/*: atoi_ p:l */
i64 atoi_(char*p){static const char digits[]="0123456789abcdef";u64 v=0;char out[72];int n=0;
for(int i=0;i<8;i++)v=v*256+(unsigned char)p[i];
unsigned base=(unsigned char)p[9]%15+2;u64 w=v;do{out[n++]=digits[w%base];w/=base;}while(w);
for(int i=0;i<n;i++)p[16+i]=out[n-1-i];p[16+n]=0;
u64 back=0;for(char*q=p+16;*q;q++)back=back*base+(u64)(*q<='9'?*q-'0':*q-'a'+10);
return (i64)(back-v)+n;}

/*: moves p:v */
unsigned moves(unsigned char*p){__builtin_memcpy(p+100,p,50);__builtin_memmove(p+3,p,40);
  __builtin_memset(p+60,p[0],23);
for(int i=0;i<40;i++)p[200+i]=p[120-i];return (unsigned)__builtin_memcmp(p,p+100,50)<0x80000000u;}

/*: crc p:v */
unsigned crc(unsigned char*p){unsigned t[256];for(unsigned i=0;i<256;i++){unsigned c=i;for(int k=0;
  k<8;k++)c=c&1?0xedb88320u^(c>>1):c>>1;t[i]=c;}
unsigned c=~0u;for(int i=0;i<256;i++)c=t[(c^p[i])&255]^(c>>8);return ~c;}

/*: sha_like p:u */
static inline u64 rotl(u64 x,int k){return x<<k|x>>(64-k);}
u64 sha_like(u64*p){u64 a=p[0],b=p[1],c=p[2],d=p[3];for(int i=0;i<28;i++){a=rotl(a+b^p[4+i],13);
  b=rotl(b^c,37)+d;c-=rotl(a,i&63?i&63:1);d^=b*0x9e3779b97f4a7c15ull;}p[0]=a;p[1]=b;return a^b^c^d;}

/*: rot32 vi:v */
unsigned rot32(unsigned x,int k){k&=31;return (x<<k|x>>((32-k)&31))^(x>>k|x<<((32-k)&31))*3;}

/*: varargs lidf:d */
typedef __builtin_va_list va;
NOINLINE static double vsum(int n,const char*kinds,...){va a;__builtin_va_start(a,kinds);double s=0;
for(int i=0;i<n;i++)switch(kinds[i]){case 'i':s+=__builtin_va_arg(a,int);break;
  case 'l':s-=(double)__builtin_va_arg(a,i64)*.5;break;
case 'd':s+=__builtin_va_arg(a,double)*3;break;case 'p':s+=*__builtin_va_arg(a,int*);break;}
va b;__builtin_va_copy(b,a);__builtin_va_end(b);__builtin_va_end(a);return s;}
double varargs(i64 l,int i,double d,float f){int x=i/2;
  return vsum(12,"ildpildddiii",i,l,d,&x,i-1,l/3,d*2,(double)f,1.5,i/3,7,-2)+vsum(0,
  "")+vsum(2,"dd",d,(double)f);}

/*: va_struct id:d */
struct VS{int a;double b;i64 c;}; NOINLINE static double vst(int n,...){va a;
  __builtin_va_start(a,n);double s=0;
while(n--){struct VS v=__builtin_va_arg(a,struct VS);s+=v.a*v.b+(double)v.c;
  int k=__builtin_va_arg(a,int);s-=k;}__builtin_va_end(a);return s;}
double va_struct(int i,double d){struct VS v={i,d,i*2ll},w={3,d/2,-1};return vst(3,v,1,w,i,v,-5);}

/*: ackermann ii:i */
int ackermann(int m,int n){m&=1;n&=7;if(m<0||n<0)return 0;
  return m==0?n+1:n==0?ackermann(m-1,1):ackermann(m-1,ackermann(m,n-1));}

/*: mutual v:i */
static int odd_(unsigned);NOINLINE static int even_(unsigned n){return n==0?1:odd_(n-1);}
  NOINLINE static int odd_(unsigned n){return n==0?0:even_(n-1);} int mutual(unsigned n){n&=1023;
  return even_(n)*2+odd_(n);}

/*: quick p:i */
static void qs(int*a,int lo,int hi,int(*cmp)(int,int)){if(lo>=hi)return;
  int p=a[(lo+hi)/2],i=lo,j=hi;
while(i<=j){while(cmp(a[i],p)<0)i++;while(cmp(a[j],p)>0)j--;if(i<=j){int t=a[i];a[i]=a[j];a[j]=t;
  i++;j--;}}qs(a,lo,j,cmp);qs(a,i,hi,cmp);}
static int up(int a,int b){return a<b?-1:a>b;} static int down(int a,int b){return up(b,a);}
int quick(int*p){qs(p,0,31,up);qs(p,32,63,down);return p[0]^p[63];}

/*: queens i:i */
static int qn(unsigned n,unsigned c,unsigned l,unsigned r){unsigned all=(1u<<n)-1;
  if(c==all)return 1;int s=0;
for(unsigned f=all&~(c|l|r);f;f&=f-1){unsigned b=f&-f;s+=qn(n,c|b,(l|b)<<1,(r|b)>>1);}return s;}
int queens(int n){return qn(((unsigned)n&3)+3,0,0,0);}

/*: dispatch iii:i */
typedef int(*op)(int,int);static int o_add(int a,int b){return (int)((unsigned)a+(unsigned)b);}
  static int o_sub(int a,int b){return (int)((unsigned)a-(unsigned)b);}
static int o_xor(int a,int b){return a^b;}static int o_max(int a,int b){return a>b?a:b;}
static const op ops[]={o_add,o_sub,o_xor,o_max};static op mutable_[2]={o_add,o_xor};
int dispatch(int c,int a,int b){op t=mutable_[0];mutable_[0]=mutable_[1];mutable_[1]=t;
  int r=ops[c&3](a,b)^mutable_[0](b,1);t=mutable_[0];mutable_[0]=mutable_[1];mutable_[1]=t;return r;
  }

/*: computed i:i */
int computed(int x){static void*const to[]={&&a,&&b,&&c,&&end};int n=0,s=0;unsigned u=(unsigned)x;
next:if(n++>20)goto end;goto *to[u&3];a:s+=1;u=u>>1|1u<<31;goto next;b:s*=3;u>>=2;goto next;
  c:s^=0x55;u=u*5+1;goto next;end:return s*100+n;}

/*: jump iu:l */
i64 jump(int x,u64 y){switch(x){case 0 ... 3:y+=1;case 10:y^=77;break;case -5:return -1;
  case 2147483647:return 5;case 63:y*=3;break;case 64:y<<=3;break;default:
switch(y%23){case 0:y=1;break;case 1:y=22;break;case 2:y=3;break;case 3:y=99;break;case 4:y=17;
  break;case 5:y=2;break;case 6:y=66;break;case 7:return 8;case 20:y+=6;break;case 22:y=~y;}}
  return (i64)y;}

/*: by_value iddl:d */
struct B1{char c[3];};struct B2{i64 a,b;};struct B3{double x[5];int n;};struct B4{float f,g;};
  struct B5{struct B4 a;struct B1 b;};
NOINLINE static struct B2 mk2(struct B1 a,struct B2 b){struct B2 r={a.c[0]+b.b,a.c[2]-b.a};return r;
  }
NOINLINE static struct B3 mk3(struct B3 a,struct B4 f,int k){a.x[k]=f.f*f.g;a.n+=k;return a;}
NOINLINE static struct B5 mk5(int a,struct B5 b,int c,int d,int e,int f,int g,int h,struct B4 q){
  b.a.f+=(float)a+q.f;b.b.c[1]=(char)(c+d+e+f+g+h);return b;}
double by_value(int i,double d,double e,i64 l){struct B1 a={{(char)i,2,(char)(i>>8)}};struct B2 b={
  l,i};b=mk2(a,b);struct B3 c={{d,e,1,2,3},i};struct B4 f={(float)d,2};
c=mk3(c,f,i&3);struct B5 g={f,a};g=mk5(i,g,1,2,3,4,5,6,f);
  return (double)b.a+(double)b.b+c.x[i&3]+c.x[4]+c.n+g.a.f+g.b.c[1]+g.b.c[2];}

/*: fields uv:u */
struct F{unsigned a:3;int b:5;u64 c:40;i64 d:17;unsigned char e:7;_Bool f:1;unsigned:0;
  unsigned short g:11;};
struct __attribute__((packed)) G{char a;unsigned b:13;u64 c:37;int d;short e;};
u64 fields(u64 x,unsigned y){struct F f={0};f.a=y;f.b=(int)(y>>3);f.c=x;f.d=(i64)x>>9;
  f.e=(unsigned char)(y>>7);f.f=x&2;f.g=(unsigned short)x;f.b+=3;f.c=(u64)f.c*5;f.d-=f.b;
struct G g={1};g.b=y;g.c=x>>5;g.d=(int)y;g.e=(short)x;g.c=(u64)g.c+g.b;g.d^=g.e;
return (u64)f.a+(u64)f.b*7
  +(u64)f.c*11+(u64)f.d*13
  +f.e*17ull+f.f*19ull+f.g*23ull+g.b*29ull+(u64)g.c*31ull+(u64)g.d*37+(u64)g.e+sizeof(f)*sizeof(g);}

/*: unions du:u */
union U{double d;u64 u;float f[2];unsigned char c[8];short s[4];};u64 unions(double d,u64 x){
  union U u;u.d=d;u.c[1]^=(unsigned char)x;u.s[3]^=(short)(x>>9);u64 r=u.u;
if(d==d){u.f[1]+=0;}return d!=d?0:r^u.u;}

/*: wide_shifts uui:u */
u64 wide_shifts(u64 a,u64 b,int k){u128 x=(u128)a<<64|b;k&=127;u128 l=x<<k,r=x>>k;i128 s=(i128)x>>k;
  u128 c=(u128)1<<(k%128);
return (u64)(l>>64)^(u64)l*3
  ^(u64)(r>>64)*5^(u64)r*7
  ^(u64)((u128)s>>64)*11
  ^(u64)s*13^(u64)(x/(c|1))^(u64)((x%(c|3))>>64)^(u64)(x<c)^((i128)x<(i128)a?9:0);}

/*: overflows llii:l */
i64 overflows(i64 a,i64 b,int c,int d){i64 r;u64 u;int i;unsigned v;i64 s=0;
  s+=__builtin_add_overflow(a,b,&r);s^=r;s+=__builtin_sub_overflow(a,b,&r)*2;s^=r;
  s+=__builtin_mul_overflow(a,b,&r)*4;s^=r;
s+=__builtin_mul_overflow((u64)a,(u64)b,&u)*8;s^=(i64)u;s+=__builtin_add_overflow(c,d,&i)*16;s^=i;
  s+=__builtin_mul_overflow(c,d,&i)*32;s^=i;
  s+=__builtin_mul_overflow((unsigned)c,(unsigned)d,&v)*64;
s+=__builtin_sub_overflow((unsigned)c,(unsigned)d,&v)*128;short h;
  s+=__builtin_add_overflow((short)c,(short)d,&h)*256;return s^h^v;}

/*: carries uuuu:u */
u64 carries(u64 a,u64 b,u64 c,u64 d){u64 lo,hi;unsigned k=__builtin_add_overflow(a,c,&lo);hi=b+d+k;
  u64 p=lo-c,q=hi-d-(lo<c);u128 m=(u128)a*c;m+=(u128)b*d;return hi^p*3^q*5^(u64)m^(u64)(m>>64);}

/*: bits2 uv:i */
int bits2(u64 x,unsigned y){
  return __builtin_parityll(x)
  +2*__builtin_parity(y)
  +4*__builtin_ffsll((i64)x)
  +512*__builtin_ffs((int)y)
  +65536*__builtin_clrsbll((i64)x)+(__builtin_popcount(y)<<24)+(int)reversed32(y);}

/*: shifts_var uilv:u */
u64 shifts_var(u64 a,int k,i64 b,unsigned c){k&=63;int j=k&31;
  return (a<<k)+(a>>k)+(u64)(b>>k)
  +(c<<j)+(c>>j)+(u64)((int)c>>j)+(u64)(i64)(signed char)(a>>(k/2))+(unsigned short)(b>>k);}

/*: complex_ dddd:d */
NOINLINE static _Complex double cmul(_Complex double a,_Complex double b){return a*b;}
  NOINLINE static _Complex float cf(_Complex float a,float b){return a*b+a;}
double complex_(double a,double b,double c,double d){_Complex double x,y;__real__ x=a;__imag__ x=b;
  __real__ y=c;__imag__ y=d;_Complex double z=cmul(x,y)+~x-y;_Complex float f;__real__ f=(float)a;
  __imag__ f=(float)b;f=cf(f,(float)c);
return __real__ z*2+__imag__ z+__real__ f-__imag__ f+(x==y)+(z!=x);}

/*: complex_div dddd:d */
double complex_div(double a,double b,double c,double d){if(!(a>-1e9&&a<1e9))a=1;
  if(!(b>-1e9&&b<1e9))b=2;if(!(c>-1e9&&c<1e9))c=3;if(!(d>-1e9&&d<1e9))d=4;c=(int)c|1;d=(int)d;
  a=(int)a;b=(int)b;
_Complex double x,y;__real__ x=a;__imag__ x=b;__real__ y=1;__imag__ y=0;x=x/y;_Complex float f;
  __real__ f=(float)a;__imag__ f=3;_Complex float g;__real__ g=2;__imag__ g=0;f=f/g;
  return __real__ x+__imag__ x*3+__real__ f;}

/*: chars df:i */
int chars(double d,float f){if(!(d>-100&&d<100))d=-3.99;if(!(f>0&&f<200))f=3.5f;
  return (signed char)d
  +(unsigned char)f*3+(short)d*5+(unsigned short)f*7+(_Bool)d*11+(_Bool)f+(int)(char)(int)d;}

/*: u64_float uv:d */
double u64_float(u64 a,unsigned b){
  return (double)a+(double)(float)a*2+(float)b+(double)(float)(i64)a+(double)(unsigned short)a;}

/*: to_u64 df:u */
u64 to_u64(double d,float f){if(!(d>=0&&d<18446744073709549568.))d=9223372036854775808.;
  if(!(f>=0&&f<1.8e19f))f=1e19f;return (u64)d^(u64)f*3;}

/*: roundtrip df:d */
double roundtrip(double d,float f){return (double)(float)d+(double)(float)(double)f*((float)d==f);}

/*: signs dfdf:d */
double signs(double a,float b,double c,float d){
  return __builtin_copysign(a,
  c)+__builtin_copysignf(b,
  d)+__builtin_fabs(a)+(double)__builtin_fabsf(b)
  +(__builtin_signbit(a)
  ?1:0)+(__builtin_signbit(b)?2:0)+(-a)*0+(__builtin_isnan(a)?4:0)+(__builtin_isinf(b)?8:0);}

/*: classify df:i */
int classify(double a,float b){
  return (a!=a)+2*(b!=b)
  +4*__builtin_isinf_sign(a)
  +8*!!__builtin_isfinite(b)
  +16*!!__builtin_isnormal(a)+32*!!__builtin_isless(a,(double)b)+64*!!__builtin_isunordered(a,
  (double)b)+128*!!__builtin_islessgreater(a,
  (double)b)+256*!(a>=b)+512*!!__builtin_isgreaterequal(a,(double)b);}

/*: zero_division dfd:d */
double zero_division(double a,float b,double c){volatile double z=0;volatile float y=-0.0f;
  double r=a/z;r=r!=r?1:r;float q=b/y;double s=c/c;
  return (r>0)+2*(r<0)+4*(q>0)+8*(q<0)+16*(q!=q)+32*(s!=s)+64*(z/z!=z/z)+(1/(double)y<0)*128;}

/*: denormals dfi:d */
double denormals(double a,float b,int k){double t=2.2250738585072014e-308;float u=1.17549435e-38f;
  for(int i=0;i<(k&15);i++){t*=.5;u*=.5f;}
  return t*1e308*a+t/3*4e307+(double)(u*3e37f)*b+(t>0)+(u>0)*2+(double)(float)(t*1e270);}

/*: fma_ ddd:d */
double fma_(double a,double b,double c){double p=a*b;
  return p+c-(c+p)+(a*c-b)*.25+__builtin_fma(a,b,c)*0.5;}

/*: minmax ddff:d */
double minmax(double a,double b,float c,float d){double m=a<b?a:b,n=a>b?a:b;
  float o=c<d?c:d,p=c>=d?c:d;return m*3+n+(double)(o-p)+(a==b?1:2)+1/(m==0?m:1);}

/*: unaligned p:u */
struct __attribute__((packed)) P1{char c;int i;i64 l;short s;double d;float f;};
u64 unaligned(char*p){struct P1*q=(struct P1*)(p+1),*r=(struct P1*)(p+101);r->i=q->i+1;
  r->l=q->l^q->s;r->s=(short)(q->s*3);__builtin_memcpy(&r->d,&q->d,8);r->c=q->c;
  __builtin_memcpy(&r->f,&q->f,4);return (u64)r->l+(u64)r->i;}

/*: big_frame i:i */
NOINLINE static int touch(volatile char*p,int n){int s=0;for(int i=0;i<n;i+=4096){p[i]=(char)i;
  s+=p[i];}p[n-1]=7;return s+p[n-1];}
int big_frame(int n){volatile char b[3000000];b[n&1023]=3;return touch(b,3000000)+b[2999999];}

/*: aligned_frame i:i */
NOINLINE static int lowbits(void*p){return (int)((u64)p&255);}
int aligned_frame(int n){_Alignas(256) char b[64];_Alignas(64) int c[n&15|1];b[0]=1;c[0]=n;
  int r=lowbits(b)|(lowbits(c)&63);return r*1000+c[0]%7+b[0];}

/*: alloca_ ii:i */
NOINLINE static int use_(int*p,int n){int s=0;for(int i=0;i<n;i++){p[i]=i*i;}for(int i=n;i--;
  )s=s*3+p[i];return s;}
int alloca_(int n,int m){n=(n&63)+1;m=(m&31)+1;int s=0;for(int i=0;i<3;i++){
  int*p=__builtin_alloca((unsigned)n*4);int*q=__builtin_alloca((unsigned)m*4);
  s^=use_(p,n)+use_(q,m);s+=p[n-1]+q[m-1];}return s;}

/*: vla2 ii:i */
int vla2(int n,int m){n=(n&7)+1;m=(m&7)+1;int a[n][m];for(int i=0;i<n;i++)for(int j=0;j<m;
  j++)a[i][j]=i*j-i;int s=0;{int t[m];for(int j=0;j<m;j++){t[j]=0;for(int i=0;i<n;i++)t[j]+=a[i][j];
  s=s*5+t[j];}}return s+(int)sizeof(a);}

/*: weak_common i:i */
extern int nowhere(int) __attribute__((weak));extern int weak_data_ __attribute__((weak));
  int weak_common_[7];__attribute__((weak)) int weak_fn(int x){return x*3;} int weak_common(int i){
  int r=nowhere?nowhere(i):11;r+=&weak_data_?100:0;weak_common_[i&3]=r;
  return weak_fn(i&255)+weak_common_[i&3];}

/*: pointers i:l */
struct N{const char*name;struct N*next;int(*f)(int);i64 pad[2];};static int sq(int x){return x*x;}
  static int neg(int x){return -x;}
static struct N n2={"two",0,neg,{1,2}},n1={"one",&n2,sq,{3,4}},n0={"zero",&n1,0,{5,6}};
  static i64*const mid=&n1.pad[1];static const char*const tail=&"abcdef"[3];
i64 pointers(int i){i&=1023;i64 s=0;for(struct N*p=&n0;p;p=p->next){
  s=s*31+p->name[1]+(p->f?p->f(i):0)+p->pad[0];}return s+*mid+tail[0]+(mid-&n1.pad[0]);}

/*: statics i:i */
int statics(int x){static int count;static const double w[4]={.5,1.5,-2,8};static int hist[4];
  hist[x&3]+=1;count+=hist[x&3];int r=count+(int)(w[x&3]*2);count=0;hist[x&3]=0;return r;}

/*: atomics2 pil:l */
i64 atomics2(i64*p,int v,i64 w){int*i=(int*)(p+10);short*h=(short*)(p+20);
  signed char*c=(signed char*)(p+24);i64 r=0;
r^=__atomic_fetch_sub(p,w,5);r^=__atomic_fetch_and(p+1,w,5);r^=__atomic_fetch_nand(p+2,w,5);
  r^=__atomic_fetch_xor(p+3,w,5);r^=__atomic_add_fetch(p+4,w,5);r^=__atomic_or_fetch(p+5,w,5);
  r^=__atomic_exchange_n(p+6,w,5);
r+=__atomic_fetch_sub(i,v,5);r+=__atomic_fetch_and(i+1,v,5);r+=__atomic_xor_fetch(i+2,v,5);
  r+=__atomic_nand_fetch(i+3,v,5);r+=__atomic_exchange_n(i+4,v,5);
r*=3;r+=__atomic_fetch_add(h,(short)v,5);r+=__atomic_exchange_n(h+1,(short)v,5);
  r+=__atomic_fetch_or(h+2,(short)v,5);r+=__atomic_fetch_sub(c,(signed char)v,5);
  r+=__atomic_fetch_and(c+3,(signed char)v,5);
i64 e=p[7];r+=__atomic_compare_exchange_n(p+7,&e,w,1,5,5);short s=h[3];
  r+=__atomic_compare_exchange_n(h+3,&s,(short)v,0,5,5)*2;s=(short)(h[4]+1);
  r+=__atomic_compare_exchange_n(h+4,&s,(short)v,0,5,5)*4;r+=s;
__atomic_store_n(p+8,w,3);r+=__atomic_load_n(p+8,2);__atomic_store_n(c+5,(signed char)v,0);
  r+=__atomic_load_n(c+5,0);__atomic_thread_fence(5);c[6]&=1;return r+__atomic_test_and_set(c+6,5);}

/*: fetch_max pl:l */
i64 fetch_max(i64*p,i64 w){i64 o=__atomic_load_n(p,0);
  while(o<w&&!__atomic_compare_exchange_n(p,&o,w,1,5,0)){}return o;}

/*: loops pi:d */
double loops(double*p,int n){double s=0;for(int i=0;i<32;i++)if(!(p[i]>-1e3&&p[i]<1e3))p[i]=i-.5;
  n&=31;for(int i=n;i-->0;)s+=p[i]*i;for(int i=0;i<32;i+=3)s-=p[i];int i=0;do{s=s*.5+p[i];}
  while(p[i]<100&&++i<n);while(s>1e6||s<-1e6)s/=10;return s;}

/*: saxpy pf:f */
float saxpy(float*p,float a){for(int i=0;i<64;i++)if(!(p[i]>-1e3f&&p[i]<1e3f))p[i]=(float)i;
  if(!(a>-10&&a<10))a=2;for(int i=0;i<32;i++)p[i]+=a*p[i+32];float m=p[0];for(int i=1;i<32;
  i++)m=m>p[i]?m:p[i];return m;}

/*: stencil p:i */
int stencil(int*p){for(int t=0;t<5;t++){for(int i=1;i<63;
  i++)p[i]=(int)((unsigned)p[i-1]+(unsigned)p[i]*2+(unsigned)p[i+1])>>2;}int s=0;for(int i=0;i<64;
  i++)s^=p[i];return s;}

/*: matmul_i p:u */
u64 matmul_i(short*p){u64 s=0;for(int i=0;i<8;i++)for(int j=0;j<8;j++){int a=0;for(int k=0;k<8;
  k++)a+=p[i*8+k]*p[64-64+k*8+j];s=s*31+(u64)(i64)a;}return s;}

/*: many_args lliiddff:d */
NOINLINE static i64 twenty(signed char a,
  short b,int c,i64 d,unsigned char e,unsigned short f,unsigned g,u64 h,
  float i,double j,signed char k,short l,int m,i64 n,_Bool o,float p,double q,void*r,i128 s,char t){
  return a+2*b+3*c+4*d+5*e
  +6*f+7*(i64)g+8*(i64)h
  +(i64)i+(i64)j+9*k+10*l+11*m+12*n+13*o+(i64)p+(i64)q+(r!=0)+(i64)s+(i64)(s>>64)+t;}
double many_args(i64 a,i64 b,int c,int d,double e,double f,float g,float h){a&=0xffffff;b&=0xffff;
  if(!(e>-1e6&&e<1e6))e=1;if(!(f>-1e6&&f<1e6))f=2;if(!(g>-1e6f&&g<1e6f))g=3;
  if(!(h>-1e6f&&h<1e6f))h=4;
return (double)twenty((signed char)a,
  (short)b,c,a,(unsigned char)c,(unsigned short)d,(unsigned)c,(u64)b,g,e,
  (signed char)d,(short)c,d,b,a>b,h,f,&a,(i128)a<<60|(i128)b,(char)d);}

/*: ld_args dd:d */
NOINLINE static quad qq(int a,quad x,double b,quad y,int c){return x*a+y/(c?c:1)-b;}
  double ld_args(double a,double b){if(!(a>-1e6&&a<1e6))a=1;if(!(b>-1e6&&b<1e6))b=2;
  return (double)qq(3,(quad)a,b,(quad)b/3,7);}

/*: ret_128 ll:l */
NOINLINE static i128 r128(i64 a,i64 b){return (i128)a*b-((i128)b<<65);} i64 ret_128(i64 a,i64 b){
  i128 x=r128(a,b);return (i64)(x>>64)^(i64)x*3;}

/*: chain u:u */
NOINLINE static u64 c1(u64 x){return x*3+1;}NOINLINE static u64 c2(u64 x,u64(*f)(u64)){
  return f(x)^f(x>>1);} u64 chain(u64 x){u64(*volatile f)(u64)=c1;u64 s=0;for(int i=0;i<9;
  i++)s+=c2(x+(u64)i,f);return s;}

/*: tail_ uu:u */
NOINLINE static u64 t2(u64 a,u64 b){return b==0?a:t2(b,a%b);} u64 tail_(u64 a,u64 b){return t2(a,b);
  }

/*: selects lluudd:l */
i64 selects(i64 a,i64 b,u64 c,u64 d,double e,double f){i64 r=a<b?a:b;r+=c<d?(i64)c:(i64)d;
  r^=e<f?a:b;r-=e==f?1:0;r+=(int)a>(int)b?(int)a:(int)b;r^=((unsigned)c<(unsigned)d)?0x1234:0;
  r+=a==b?c==d:c!=d;return e!=e?a:r;}
