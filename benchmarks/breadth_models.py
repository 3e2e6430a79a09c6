"""The models of `benchmarks.breadth`: one of each family, small, with random weights.

A table row is what makes a family small, or what its input must be. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Case:
    """A model with its inputs (positional, or by name), and others of a second size."""

    model: nn.Module
    inputs: Any
    resized: Any = None
    training: Any = None  # inputs of a training step, where others
    generates: bool = False
    inference_only: str = ""  # why it is not trained

    def skipped(self, part: str) -> str:
        """Why a part does not apply; empty if it does."""
        if part == "sizes" and self.resized is None:
            return "its size is fixed"
        if part == "generate" and not self.generates:
            return "no language model"
        return self.inference_only if part == "train" else ""


def lively(model: nn.Module) -> nn.Module:
    """Statistics and constants that training would have moved: a branch that is scaled by zero, or
    a norm that is the identity, tests nothing."""
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None:
                m.running_mean.normal_(0, 0.1)
                m.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        for p in model.parameters():
            if p.numel() > 1 and p.is_floating_point() and bool((p == p.flatten()[0]).all()):
                p.normal_(0, 0.1) if float(p.flatten()[0]) == 0 else p.uniform_(0.5, 1.5)
    return model


# -- images --------------------------------------------------------------------------------------


def image_case(make: Callable[[], nn.Module], size: int, batch: int = 2, **options: Any) -> Case:
    model = lively(make())
    x = torch.rand(batch + 1, 3, size, size)
    return Case(model, (x[:batch].clone(),), (x,), **options)


DEPTHS = {"depths": (1, 1, 1, 1)}
LAYERS = {"layers": (1, 1, 1, 1)}

# name: (size of the image, what makes it small)
TIMM: dict[str, tuple[int, dict[str, Any]]] = {
    "resnet18": (64, LAYERS),
    "resnext50_32x4d": (64, LAYERS),
    "seresnet50": (64, LAYERS),
    "ecaresnet50d": (64, LAYERS),
    "resnetaa50": (64, LAYERS),
    "resnetblur50": (64, LAYERS),
    "resnetrs50": (64, LAYERS),
    "regnetx_002": (64, {}),
    "regnety_002": (64, {}),
    "regnetz_005": (64, {}),
    "efficientnet_b0": (64, {}),
    "tf_efficientnetv2_b0": (64, {}),
    "efficientnet_lite0": (65, {}),
    "tf_mixnet_s": (64, {}),
    "mobilenetv3_small_050": (64, {}),
    "mobilenetv4_conv_small": (64, {}),
    "mobilenetv4_hybrid_medium": (64, {}),
    "fbnetv3_b": (64, {}),
    "lcnet_050": (64, {}),
    "lcnetv2_small": (64, {}),
    "tinynet_e": (64, {}),
    "hardcorenas_a": (64, {}),
    "mnasnet_small": (64, {}),
    "spnasnet_100": (64, {}),
    "mobileone_s0": (64, {}),
    "repvgg_a0": (64, {}),
    "gernet_s": (64, {}),
    "resnet51q": (64, {}),
    "mobilevit_xxs": (64, {}),
    "mobilevitv2_050": (64, {}),
    "test_byobnet": (64, {}),
    "convnext_atto": (64, DEPTHS),
    "convnextv2_atto": (64, DEPTHS),
    "vit_tiny_patch16_224": (64, {"img_size": 64, "depth": 2}),
    "vit_relpos_small_patch16_224": (64, {"img_size": 64, "depth": 2}),
    "vit_small_r26_s32_224": (64, {"img_size": 64, "depth": 2}),
    "flexivit_small": (64, {"img_size": 64, "depth": 2}),
    "samvit_base_patch16": (64, {"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 3}),
    "deit_tiny_distilled_patch16_224": (64, {"img_size": 64, "depth": 2}),
    "deit3_small_patch16_224": (64, {"img_size": 64, "depth": 2}),
    "swin_tiny_patch4_window7_224": (224, {**DEPTHS, "embed_dim": 24}),
    "swinv2_tiny_window8_256": (64, {**DEPTHS, "img_size": 64, "window_size": 2, "embed_dim": 24}),
    "swinv2_cr_tiny_224": (64, {**DEPTHS, "img_size": 64, "window_size": 2, "embed_dim": 24}),
    "swin_s3_tiny_224": (224, {**DEPTHS, "embed_dim": 24}),
    "test_maxvit": (96, {"img_size": 96}),
    "test_coatnet": (96, {"img_size": 96}),
    "coatnet_nano_rw_224": (64, {"img_size": 64}),
    "maxxvit_rmlp_nano_rw_256": (64, {"img_size": 64}),
    "levit_128s": (224, {}),
    "levit_conv_128s": (224, {}),
    "mixer_s32_224": (64, {"img_size": 64}),
    "gmlp_ti16_224": (64, {"img_size": 64}),
    "resmlp_12_224": (64, {"img_size": 64}),
    "poolformer_s12": (64, {}),
    "caformer_s18": (64, {}),
    "cait_xxs24_224": (64, {"img_size": 64, "depth": 2}),
    "xcit_nano_12_p8_224": (64, {"img_size": 64, "depth": 2}),
    "beit_base_patch16_224": (64, {"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 4}),
    "eva02_tiny_patch14_224": (56, {"img_size": 56, "depth": 2}),
    "efficientformer_l1": (224, DEPTHS),
    "efficientformerv2_s0": (224, DEPTHS),
    "edgenext_xx_small": (64, DEPTHS),
    "fastvit_t8": (64, {"layers": (1, 1, 1, 1)}),
    "fastvit_sa12": (64, {"layers": (1, 1, 1, 1)}),
    "ghostnet_050": (64, {}),
    "ghostnetv2_100": (64, {}),
    "hrnet_w18_small": (64, {}),
    "dla34": (64, {}),
    "densenet121": (64, {"block_config": (2, 2, 2, 2)}),
    "densenetblur121d": (64, {"block_config": (2, 2, 2, 2)}),
    "inception_v3": (96, {}),
    "inception_v4": (96, {}),
    "inception_resnet_v2": (96, {}),
    "inception_next_atto": (64, DEPTHS),
    "nf_resnet26": (64, {}),
    "test_nfnet": (96, {}),
    "res2net50d": (64, LAYERS),
    "resnest14d": (64, {}),
    "skresnet18": (64, {}),
    "legacy_seresnet18": (64, {}),
    "legacy_xception": (96, {}),
    "xception41": (64, {}),
    "tresnet_m": (64, LAYERS),
    "ese_vovnet19b_dw": (64, {}),
    "nest_tiny": (224, {}),
    "pit_ti_224": (224, {"depth": (1, 1, 1)}),
    "pvt_v2_b0": (64, DEPTHS),
    "twins_svt_small": (224, DEPTHS),
    "twins_pcpvt_small": (64, {**DEPTHS, "img_size": 64}),
    "visformer_tiny": (64, {"img_size": 64, "depth": (1, 1, 1)}),
    "volo_d1_224": (64, {"img_size": 64}),
    "davit_tiny": (224, {"depths": (1, 1, 1, 1), "embed_dims": (24, 48, 96, 192)}),
    "focalnet_tiny_srf": (64, {}),
    "hiera_tiny_224": (64, {"img_size": 64, "stages": (1, 1, 1, 1)}),
    "mvitv2_tiny": (64, {"img_size": 64}),
    "crossvit_9_240": (240, {}),
    "coat_lite_tiny": (64, {"img_size": 64}),
    "coat_tiny": (64, {"img_size": 64}),
    "tnt_s_patch16_224": (64, {"img_size": 64, "depth": 2}),
    "convit_tiny": (64, {"img_size": 64, "depth": 3, "local_up_to_layer": 2}),
    "convmixer_768_32": (64, {}),
    "efficientvit_b0": (64, {}),
    "efficientvit_m0": (224, {}),
    "repvit_m0_9": (64, {"depth": (1, 1, 1, 1)}),
    "repghostnet_050": (64, {}),
    "sequencer2d_s": (64, {"layers": (1, 1, 1, 1)}),
    "gcvit_xxtiny": (224, {}),
    "selecsls42": (64, {}),
    "rexnet_100": (64, {}),
    "halonet26t": (256, {}),
    "botnet26t_256": (64, {"img_size": 64}),
    "lambda_resnet26t": (64, {"img_size": 64}),
    "mambaout_femto": (64, DEPTHS),
    "tiny_vit_5m_224": (224, DEPTHS),
    "starnet_s050": (64, DEPTHS),
    "shvit_s1": (64, {"depth": (1, 1, 1)}),
    "fasternet_t0": (64, DEPTHS),
    "nextvit_small": (64, {}),
    "vitamin_small_224": (64, {"img_size": 64, "depth": 2}),
    "efficientvim_m1": (64, {"depths": (1, 1, 1)}),
    "swiftformer_xs": (64, LAYERS),
    "iformer_t": (64, {}),
    "rdnet_tiny": (64, {}),
    "dpn48b": (64, {}),
    "cspresnet50": (64, {}),
    "cspnext_tiny": (64, {}),
    "darknet17": (64, {}),
    "hgnetv2_b0": (64, {}),
    "lowformer_b0": (64, {}),
    "cpubone_nano": (64, {}),
    "csatv2": (64, {}),
    "naflexvit_base_patch16_gap": (64, {"depth": 2}),
    "mobilenetv5_base": (64, {}),
    "vgg11_bn": (64, {}),
    "resnetv2_18": (64, LAYERS),
    "qwen3_vit_88m": (64, {"img_size": 64, "depth": 2}),
    "deepseek_vit_412m": (56, {"img_size": 56, "depth": 2}),
}


def timm_case(name: str) -> Case:
    import timm

    size, small = TIMM[name]
    return image_case(partial(timm.create_model, name, num_classes=10, **small), size)


# -- language, speech and vision of transformers -------------------------------------------------

SMALL = {
    "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
SEQ2SEQ = {
    "vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
PIXELS = {"image_size": 32, "patch_size": 8, "num_channels": 3, "num_labels": 5}
SPEECH = {
    **SMALL, "conv_dim": (32, 32, 32), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3),
    "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0, "mask_feature_prob": 0.0,
    "layerdrop": 0.0, "codevector_dim": 32, "proj_codevector_dim": 32,
}  # fmt: skip
EXPERTS = {**SMALL, **GROUPED, "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}

# name: (class of the model, input, what makes it small); the config has the model's family name
TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertForMaskedLM", "text", SMALL),
    "bert_pooled": ("BertForSequenceClassification", "text", SMALL),
    "roberta": ("RobertaForMaskedLM", "text", SMALL),
    "camembert": ("CamembertForMaskedLM", "text", SMALL),
    "xlm_roberta": ("XLMRobertaForQuestionAnswering", "text", SMALL),
    "distilbert": ("DistilBertForMaskedLM", "text", {"dim": 32, "hidden_dim": 64, "n_layers": 2,
                   "n_heads": 4, "vocab_size": 99, "max_position_embeddings": 64}),
    "albert": ("AlbertForMaskedLM", "text", {**SMALL, "embedding_size": 16}),
    "electra": ("ElectraForPreTraining", "text", {**SMALL, "embedding_size": 16}),
    "deberta": ("DebertaForMaskedLM", "text", {**SMALL, "relative_attention": True,
                "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}),
    "deberta_v2": ("DebertaV2ForMaskedLM", "text", {**SMALL, "relative_attention": True,
                   "pos_att_type": ["c2p", "p2c"], "position_buckets": 8, "share_att_key": True,
                   "position_biased_input": False, "conv_kernel_size": 3}),
    "mobilebert": ("MobileBertForMaskedLM", "text", {**SMALL, "embedding_size": 16,
                   "intra_bottleneck_size": 16, "true_hidden_size": 16}),
    "squeezebert": ("SqueezeBertForMaskedLM", "text", {**SMALL, "embedding_size": 32}),
    "mpnet": ("MPNetForMaskedLM", "text", SMALL),
    "convbert": ("ConvBertForMaskedLM", "text", {**SMALL, "embedding_size": 16}),
    "fnet": ("FNetForMaskedLM", "unmasked", SMALL),
    "longformer": ("LongformerForMaskedLM", "text", {**SMALL, "attention_window": 4}),
    "big_bird": ("BigBirdForMaskedLM", "text", {**SMALL, "attention_type": "original_full"}),
    "reformer": ("ReformerForMaskedLM", "text", {**SMALL, "attn_layers": ["local", "local"],
                 "attention_head_size": 8, "feed_forward_size": 64, "is_decoder": False,
                 "axial_pos_embds": False, "local_attn_chunk_length": 4}),
    "xlnet": ("XLNetLMHeadModel", "text", {"vocab_size": 99, "d_model": 32, "n_layer": 2,
              "n_head": 4, "d_inner": 64}),
    "xlm": ("XLMWithLMHeadModel", "text", {"vocab_size": 99, "emb_dim": 32, "n_layers": 2,
            "n_heads": 4, "max_position_embeddings": 64}),
    "funnel": ("FunnelForMaskedLM", "text", {"vocab_size": 99, "d_model": 32, "n_head": 4,
               "d_head": 8, "d_inner": 64, "block_sizes": [1, 1], "num_decoder_layers": 1}),
    "modernbert": ("ModernBertForMaskedLM", "text", {**SMALL, "local_attention": 8}),
    "esm": ("EsmForMaskedLM", "text", {**SMALL, "mask_token_id": 3,
            "position_embedding_type": "rotary"}),
    "canine": ("CanineModel", "text", {**SMALL, "local_transformer_stride": 4,
               "attend_from_chunk_width": 4, "attend_from_chunk_stride": 4,
               "attend_to_chunk_width": 4, "attend_to_chunk_stride": 4, "upsampling_kernel_size": 4,
               "num_hash_buckets": 50}),
    "layoutlm": ("LayoutLMForMaskedLM", "text", SMALL),
    "gpt2": ("GPT2LMHeadModel", "causal", {**SMALL, "n_positions": 64}),
    "openai_gpt": ("OpenAIGPTLMHeadModel", "causal", {**SMALL, "n_positions": 64}),
    "gptj": ("GPTJForCausalLM", "causal", {**SMALL, "n_positions": 64, "rotary_dim": 4}),
    "gpt_neo": ("GPTNeoForCausalLM", "causal", {**SMALL, "window_size": 4,
                "attention_types": [[["global", "local"], 1]]}),
    "gpt_neox": ("GPTNeoXForCausalLM", "causal", SMALL),
    "gpt_bigcode": ("GPTBigCodeForCausalLM", "causal", {**SMALL, "n_positions": 64}),
    "codegen": ("CodeGenForCausalLM", "causal", {**SMALL, "n_positions": 64, "rotary_dim": 4}),
    "bloom": ("BloomForCausalLM", "causal", {**SMALL, "n_head": 4, "n_layer": 2}),
    "falcon": ("FalconForCausalLM", "causal", {**SMALL, "alibi": False}),
    "mpt": ("MptForCausalLM", "causal", {"d_model": 32, "n_heads": 4, "n_layers": 2,
            "vocab_size": 99, "max_seq_len": 64}),
    "opt": ("OPTForCausalLM", "causal", {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "llama": ("LlamaForCausalLM", "causal", {**SMALL, **GROUPED}),
    "mistral": ("MistralForCausalLM", "causal", {**SMALL, **GROUPED, "sliding_window": 6}),
    "qwen2": ("Qwen2ForCausalLM", "causal", {**SMALL, **GROUPED}),
    "qwen3": ("Qwen3ForCausalLM", "causal", {**SMALL, **GROUPED}),
    "gemma": ("GemmaForCausalLM", "causal", {**SMALL, **GROUPED}),
    "gemma2": ("Gemma2ForCausalLM", "causal", {**SMALL, **GROUPED, "sliding_window": 6}),
    "gemma3": ("Gemma3ForCausalLM", "causal", {**SMALL, **GROUPED, "sliding_window": 6,
               "query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "phi": ("PhiForCausalLM", "causal", SMALL),
    "phi3": ("Phi3ForCausalLM", "causal", {**SMALL, "num_key_value_heads": 2}),
    "stablelm": ("StableLmForCausalLM", "causal", {**SMALL, "num_key_value_heads": 2}),
    "starcoder2": ("Starcoder2ForCausalLM", "causal", {**SMALL, "num_key_value_heads": 2}),
    "cohere": ("CohereForCausalLM", "causal", {**SMALL, "num_key_value_heads": 2}),
    "olmo2": ("Olmo2ForCausalLM", "causal", {**SMALL, "num_key_value_heads": 2}),
    "granite": ("GraniteForCausalLM", "causal", {**SMALL, "num_key_value_heads": 2}),
    "smollm3": ("SmolLM3ForCausalLM", "causal", {**SMALL, "num_key_value_heads": 2}),
    "mixtral": ("MixtralForCausalLM", "causal", EXPERTS),
    "qwen2_moe": ("Qwen2MoeForCausalLM", "causal", {**EXPERTS, "moe_intermediate_size": 32,
                  "shared_expert_intermediate_size": 32}),
    "olmoe": ("OlmoeForCausalLM", "causal", EXPERTS),
    "deepseek_v3": ("DeepseekV3ForCausalLM", "causal", {**SMALL, "num_key_value_heads": 4,
                    "moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2,
                    "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "kv_lora_rank": 16,
                    "q_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
                    "v_head_dim": 8}),
    "mamba": ("MambaForCausalLM", "unmasked_causal", {**SMALL, "state_size": 4,
              "time_step_rank": 4}),
    "mamba2": ("Mamba2ForCausalLM", "unmasked_causal", {**SMALL, "state_size": 4, "num_heads": 8,
               "head_dim": 8, "n_groups": 2, "chunk_size": 4}),
    "rwkv": ("RwkvForCausalLM", "unmasked", {**SMALL, "attention_hidden_size": 32,
             "context_length": 64}),
    "recurrent_gemma": ("RecurrentGemmaForCausalLM", "unmasked_causal", {**SMALL, **GROUPED,
                        "lru_width": 32, "num_key_value_heads": 1, "num_hidden_layers": 3}),
    "t5": ("T5ForConditionalGeneration", "seq2seq", {"vocab_size": 99, "d_model": 32, "d_kv": 8,
           "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}),
    "longt5": ("LongT5ForConditionalGeneration", "seq2seq", {"vocab_size": 99, "d_model": 32,
               "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "local_radius": 3,
               "decoder_start_token_id": 0}),
    "bart": ("BartForConditionalGeneration", "seq2seq", SEQ2SEQ),
    "mbart": ("MBartForConditionalGeneration", "seq2seq", SEQ2SEQ),
    "pegasus": ("PegasusForConditionalGeneration", "seq2seq", SEQ2SEQ),
    "marian": ("MarianMTModel", "seq2seq", SEQ2SEQ),
    "m2m_100": ("M2M100ForConditionalGeneration", "seq2seq", SEQ2SEQ),
    "led": ("LEDForConditionalGeneration", "seq2seq", {**SEQ2SEQ, "attention_window": 4}),
    "whisper": ("WhisperForConditionalGeneration", "whisper", {**SEQ2SEQ, "num_mel_bins": 16,
                "max_source_positions": 20, "max_target_positions": 64}),
    "speech_to_text": ("Speech2TextForConditionalGeneration", "features", {**SEQ2SEQ,
                       "input_feat_per_channel": 16, "max_source_positions": 64,
                       "max_target_positions": 64, "conv_channels": 32}),
    "wav2vec2": ("Wav2Vec2ForCTC", "audio", SPEECH),
    "hubert": ("HubertForCTC", "audio", SPEECH),
    "wavlm": ("WavLMForCTC", "audio", SPEECH),
    "sew": ("SEWForCTC", "audio", {**SPEECH, "squeeze_factor": 2}),
    "ast": ("ASTForAudioClassification", "spectrogram", {**SMALL, "patch_size": 4, "max_length": 24,
            "num_mel_bins": 16, "frequency_stride": 2, "time_stride": 2}),
    "encodec": ("EncodecModel", "waveform", {"hidden_size": 16, "num_filters": 4,
                "upsampling_ratios": [4, 2], "codebook_size": 16, "num_lstm_layers": 1}),
    "clip": ("CLIPModel", "both", {"text_config": SMALL, "vision_config": {**SMALL, **PIXELS},
             "projection_dim": 16}),
    "siglip": ("SiglipModel", "both", {"text_config": {**SMALL, "projection_size": 32},
               "vision_config": {**SMALL, **PIXELS}}),
    "chinese_clip": ("ChineseCLIPModel", "both", {"text_config": SMALL, "projection_dim": 16,
                     "vision_config": {**SMALL, **PIXELS}}),
    "blip": ("BlipModel", "both", {"text_config": SMALL, "vision_config": {**SMALL, **PIXELS},
             "projection_dim": 16}),
    "vilt": ("ViltModel", "both", {**SMALL, **PIXELS}),
    "vit": ("ViTForImageClassification", "image", {**SMALL, **PIXELS}),
    "vit_mae": ("ViTMAEModel", "image", {**SMALL, **PIXELS, "mask_ratio": 0.0}),
    "deit": ("DeiTForImageClassificationWithTeacher", "image", {**SMALL, **PIXELS}),
    "beit": ("BeitForImageClassification", "image", {**SMALL, **PIXELS}),
    "data2vec_vision": ("Data2VecVisionForImageClassification", "image", {**SMALL, **PIXELS,
                        "use_relative_position_bias": True}),
    "dinov2": ("Dinov2ForImageClassification", "image", {**SMALL, **PIXELS}),
    "swin": ("SwinForImageClassification", "image", {"image_size": 32, "patch_size": 2,
             "embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4}),
    "swinv2": ("Swinv2ForImageClassification", "image", {"image_size": 32, "patch_size": 2,
               "embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4}),
    "convnext": ("ConvNextForImageClassification", "image", {"hidden_sizes": [8, 16, 24, 32],
                 "depths": [1, 1, 2, 1]}),
    "convnextv2": ("ConvNextV2ForImageClassification", "image", {"hidden_sizes": [8, 16, 24, 32],
                   "depths": [1, 1, 2, 1]}),
    "resnet": ("ResNetForImageClassification", "image", {"embedding_size": 8, "layer_type": "basic",
               "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}),
    "regnet": ("RegNetForImageClassification", "image", {"embedding_size": 8, "groups_width": 8,
               "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", "image", {"depth_multiplier": 0.35}),
    "mobilevit": ("MobileViTForImageClassification", "image", {"hidden_sizes": [16, 24, 32],
                  "neck_hidden_sizes": [8, 8, 8, 16, 16, 24, 32], "num_attention_heads": 2}),
    "levit": ("LevitForImageClassification", "image", {"image_size": 64, "depths": [1, 1, 1],
              "hidden_sizes": [16, 32, 48], "num_attention_heads": [2, 2, 2],
              "key_dim": [8, 8, 8]}),
    "cvt": ("CvtForImageClassification", "image", {"embed_dim": [8, 16, 24], "depth": [1, 1, 2],
            "num_heads": [1, 2, 3], "cls_token": [False, False, True],
            "drop_path_rate": [0.0, 0.0, 0.0]}),
    "poolformer": ("PoolFormerForImageClassification", "image", {"depths": [1, 1, 1, 1],
                   "hidden_sizes": [8, 16, 24, 32]}),
    "pvt": ("PvtForImageClassification", "image", {"image_size": 64, "depths": [1, 1, 1, 1],
            "hidden_sizes": [8, 16, 40, 64]}),
    "focalnet": ("FocalNetForImageClassification", "image", {"image_size": 32, "embed_dim": 8,
                 "hidden_sizes": [16, 32], "depths": [1, 2], "focal_levels": [2, 2],
                 "focal_windows": [3, 3]}),
    "segformer": ("SegformerForSemanticSegmentation", "image", {"depths": [1, 1, 1, 1],
                  "hidden_sizes": [8, 16, 24, 32], "decoder_hidden_size": 16}),
    "dpt": ("DPTForDepthEstimation", "image", {**SMALL, **PIXELS, "num_hidden_layers": 4,
            "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 16, 16, 16],
            "fusion_hidden_size": 16}),
    "glpn": ("GLPNForDepthEstimation", "image", {"hidden_sizes": [8, 16, 40, 64],
             "depths": [1, 1, 1, 1], "decoder_hidden_size": 16}),
    "yolos": ("YolosForObjectDetection", "image", {**SMALL, **PIXELS, "image_size": [32, 32],
              "num_detection_tokens": 5}),
    "sam": ("SamModel", "prompted", {"vision_config": {**SMALL, "image_size": 64, "patch_size": 8,
            "output_channels": 16, "num_pos_feats": 8, "window_size": 3,
            "global_attn_indexes": [1], "mlp_dim": 64},
            "prompt_encoder_config": {"hidden_size": 16, "image_size": 64, "patch_size": 8,
                                      "mask_input_channels": 4},
            "mask_decoder_config": {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2,
                                    "iou_head_hidden_dim": 16}}),
    "videomae": ("VideoMAEForVideoClassification", "video", {**SMALL, **PIXELS, "num_frames": 4,
                 "tubelet_size": 2}),
    "vivit": ("VivitForVideoClassification", "video", {**SMALL, **PIXELS, "num_frames": 4,
              "tubelet_size": [2, 8, 8]}),
    "timesformer": ("TimesformerForVideoClassification", "video", {**SMALL, **PIXELS,
                    "num_frames": 4}),
    "perceiver": ("PerceiverModel", "latent", {"d_model": 32, "d_latents": 32, "num_latents": 8,
                  "num_blocks": 1, "num_self_attends_per_block": 2, "num_self_attention_heads": 4,
                  "num_cross_attention_heads": 4}),
    "time_series": ("PatchTSTForPrediction", "series", {"context_length": 32, "patch_length": 8,
                    "patch_stride": 8, "num_input_channels": 3, "prediction_length": 8,
                    "d_model": 16, "num_attention_heads": 4, "ffn_dim": 32,
                    "num_hidden_layers": 2}),
}  # fmt: skip
CONFIGS = {
    "MarianMTModel": "MarianConfig",
    "XLMWithLMHeadModel": "XLMConfig",
    "Gemma3ForCausalLM": "Gemma3TextConfig",
    "PoolFormerForImageClassification": "PoolFormerConfig",
}
SIZES = {"mobilenet_v2": 64, "mobilevit": 64, "levit": 64, "pvt": 64, "segformer": 64, "glpn": 64}


def config_of(model: str) -> str:
    for part in ("For", "LMHead", "Model"):
        model = model.split(part)[0] if part in model else model
    return f"{model}Config"


def words(batch: int, length: int, mask: bool = True, left: bool = False) -> dict[str, Tensor]:
    """Token ids; the first sequence is shorter than the others where a mask can say so."""
    found = {"input_ids": torch.randint(4, 90, (batch, length))}
    if mask:
        found["attention_mask"] = torch.ones(batch, length, dtype=torch.int64)
        found["attention_mask"][0, slice(0, 2) if left else slice(-2, None)] = 0
    return found


def inputs_of(kind: str, batch: int, length: int, size: int) -> dict[str, Any]:
    pixels = torch.rand(batch, 3, size, size)
    if "causal" in kind:
        return {**words(batch, length, mask=kind == "causal", left=True)}
    match kind:
        case "text" | "unmasked":
            return words(batch, length, mask=kind == "text")
        case "seq2seq":
            return {**words(batch, length), "decoder_input_ids": torch.randint(4, 90, (batch, 5))}
        case "whisper":
            tokens = torch.randint(4, 90, (batch, length))
            return {"input_features": torch.randn(batch, 16, 40), "decoder_input_ids": tokens}
        case "features":
            tokens = torch.randint(4, 90, (batch, length))
            return {"input_features": torch.randn(batch, 40, 16), "decoder_input_ids": tokens}
        case "audio":
            return {"input_values": torch.randn(batch, 100 * length)}
        case "waveform":
            return {"input_values": torch.randn(batch, 1, 64 * length)}
        case "spectrogram":
            return {"input_values": torch.randn(batch, 24, 16)}
        case "both":
            return {**words(batch, length), "pixel_values": pixels}
        case "image":
            return {"pixel_values": pixels}
        case "prompted":
            points = torch.rand(batch, 1, 2, 2) * size
            return {"pixel_values": pixels, "input_points": points, "multimask_output": True}
        case "video":
            return {"pixel_values": torch.rand(batch, 4, 3, size, size)}
        case "latent":
            return {"inputs": torch.randn(batch, length, 32)}
        case "series":
            return {"past_values": torch.randn(batch, 32, 3)}
    raise ValueError(kind)


def transformers_case(name: str) -> Case:
    import transformers

    transformers.logging.set_verbosity_error()
    class_name, kind, small = TRANSFORMERS[name]
    config = getattr(transformers, CONFIGS.get(class_name) or config_of(class_name))(**small)
    model = lively(getattr(transformers, class_name)(config))
    size = SIZES.get(name) or (64 if kind == "prompted" else 32)
    inputs, resized = inputs_of(kind, 2, 12, size), inputs_of(kind, 3, 16, size)
    generates = "causal" in kind or kind == "seq2seq"
    if generates:
        # a cache is the business of `generate`
        inputs["use_cache"] = resized["use_cache"] = False
    return Case(model, inputs, resized, generates=generates)


# -- torchvision ---------------------------------------------------------------------------------

CLASSIFIERS = (
    "alexnet", "vgg11", "squeezenet1_1", "googlenet", "inception_v3", "mnasnet0_5",
    "resnext50_32x4d", "wide_resnet50_2", "regnet_y_400mf", "mobilenet_v3_small",
    "efficientnet_b0", "efficientnet_v2_s", "convnext_tiny", "shufflenet_v2_x1_5", "vit_b_32",
    "swin_t", "swin_v2_t", "maxvit_t",
)  # fmt: skip
SEGMENTATION = (
    "fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101",
    "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large",
)  # fmt: skip
DETECTION = (
    "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2", "keypointrcnn_resnet50_fpn", "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn", "ssdlite320_mobilenet_v3_large",
    "ssd300_vgg16",
)  # fmt: skip
VIDEO = (
    "r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "mvit_v2_s", "swin3d_t", "swin3d_s",
    "swin3d_b",
)  # fmt: skip
FLOW = ("raft_small", "raft_large")
SCORES = ("classification_head", "rpn.head.cls_logits", "box_predictor.cls_score")  # their layers
IMAGES = {"inception_v3": 96, "vit_b_32": 224, "swin_t": 64, "maxvit_t": 224, "alexnet": 80}


class Apart(nn.Module):
    """Scores with a part that depends on the place only. Those of random weights tie but for
    rounding, and what a detector gives is decided by their order."""

    def __init__(self, scores: nn.Module):
        super().__init__()
        self.scores = scores
        self.places: Tensor
        self.register_buffer("places", torch.randn(1 << 18))

    def forward(self, x: Any) -> Tensor:
        y = self.scores(x)
        return y + self.places[: y.numel()].view(y.shape)


def detector(model: nn.Module) -> nn.Module:
    """Scores that lie apart, and residual sums that do not grow: boxes of large deltas are where
    rounding has them."""
    with torch.no_grad():
        for name, m in model.named_modules():
            if name.endswith("bn3"):
                m.weight.mul_(0.1)
    for name, layer in [(n, m) for n, m in model.named_modules() if n.endswith(SCORES)]:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Apart(layer))
    return model


def torchvision_case(name: str) -> Case:
    from torchvision import models

    if name in CLASSIFIERS:
        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        make = partial(models.get_model, name, weights=None, num_classes=10, **extra)
        return image_case(make, IMAGES.get(name, 64))
    if name in FLOW:
        frames = (torch.rand(1, 3, 128, 136), torch.rand(1, 3, 128, 136))
        make = partial(models.get_model, name, weights=None)
        return Case(lively(make()), {"image1": frames[0], "image2": frames[1],
                                     "num_flow_updates": 2})  # fmt: skip
    if name in VIDEO:
        model = lively(models.get_model(name, weights=None, num_classes=10))
        frames_, side = (16, 224) if name.startswith(("mvit", "s3d")) else (16, 64)
        x = torch.rand(2, 3, frames_, side, side)
        return Case(model, (x[:1].clone(),), (x,))
    make = partial(models.get_model, name, weights=None, weights_backbone=None, num_classes=5)
    if name in SEGMENTATION:
        return image_case(make, 65)
    images = [torch.rand(3, 60, 70), torch.rand(3, 64, 50)]
    size = {} if name.startswith("ssd") else {"min_size": 64, "max_size": 96}
    model = detector(lively(make(**size)))
    return Case(model, (images,), ([images[0]],), inference_only="targets needed")


# -- torch.nn ------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """A stack of recurrent layers between an embedding and its classes."""

    def __init__(self, kind: str, **options: Any):
        super().__init__()
        self.embedding = nn.Embedding(50, 12, padding_idx=0)
        self.layers = getattr(nn, kind)(12, 16, num_layers=2, batch_first=True, **options)
        self.head = nn.LazyLinear(7)

    def forward(self, tokens: Tensor) -> Any:
        y, state = self.layers(self.embedding(tokens))
        return self.head(y), state


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(40, 8, mode=m) for m in ("sum", "mean", "max"))
        self.head = nn.Linear(24, 3)

    def forward(self, tokens: Tensor, starts: Tensor) -> Tensor:
        return self.head(torch.cat([b(tokens, starts) for b in self.bags], 1))


class Attention(nn.Module):
    """Masks of every kind that nn.MultiheadAttention knows, and its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(16, 4, batch_first=True, add_bias_kv=True)
        self.across = nn.MultiheadAttention(16, 2, kdim=12, vdim=10, batch_first=True)

    def forward(self, x: Tensor, k: Tensor, v: Tensor, padded: Tensor) -> Any:
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        y, weights = self.own(x, x, x, attn_mask=mask, average_attn_weights=False)
        return self.across(y, k, v, key_padding_mask=padded, need_weights=False)[0], weights


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        block = lambda i, o: nn.Sequential(  # noqa: E731
            nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(2, o), nn.SiLU()
        )
        self.first, self.down, self.low = block(3, 8), block(8, 16), block(16, 16)
        self.up, self.last = nn.ConvTranspose2d(16, 8, 2, 2), block(24, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        b = self.down(nn.functional.max_pool2d(a, 2))
        c = nn.functional.interpolate(
            self.low(nn.functional.avg_pool2d(b, 2)), size=b.shape[-2:], mode="bilinear"
        )
        y = nn.functional.pad(self.up(b + c), (0, a.shape[-1] % 2, 0, a.shape[-2] % 2))
        return self.head(self.last(torch.cat([a, y, a - y], 1)))


class Autoencoder(nn.Module):
    """Reconstruction and the two terms of a variational loss."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), nn.ELU(), nn.Conv2d(8, 8, 3, 2, 1), nn.Flatten(),
            nn.Linear(8 * 49, 10),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(5, 8 * 49), nn.Unflatten(1, (8, 7, 7)), nn.ConvTranspose2d(8, 8, 4, 2, 1),
            nn.LeakyReLU(0.1), nn.ConvTranspose2d(8, 1, 4, 2, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, logvar = self.encoder(x).chunk(2, 1)
        y = self.decoder(mean + noise * (0.5 * logvar).exp())
        loss = nn.functional.binary_cross_entropy(y, x, reduction="none").sum((1, 2, 3))
        return y, loss, -0.5 * (1 + logvar - mean**2 - logvar.exp()).sum(1)


class Discriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        self.layers = nn.Sequential(
            norm(nn.Conv2d(3, 8, 4, 2, 1)), nn.LeakyReLU(0.2), norm(nn.Conv2d(8, 16, 4, 2, 1)),
            nn.InstanceNorm2d(16, affine=True), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(1024, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def generator() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(12, 16, 4, 1, 0, bias=False), nn.BatchNorm2d(16), nn.ReLU(True),
        nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(True),
        nn.ConvTranspose2d(8, 3, 3, 3, 1, output_padding=1, dilation=2), nn.Tanh(),
    )  # fmt: skip


def waves() -> nn.Module:
    """One-dimensional convolutions, as in speech: dilated, grouped, gated, normalized by weight."""
    norm = nn.utils.parametrizations.weight_norm
    return nn.Sequential(
        norm(nn.Conv1d(2, 16, 5, dilation=2, padding=4)), nn.GLU(1), nn.BatchNorm1d(8),
        nn.Conv1d(8, 8, 3, groups=8, padding="same", padding_mode="circular"), nn.Mish(),
        nn.ConvTranspose1d(8, 4, 5, 2, groups=2), nn.Softplus(), nn.AdaptiveMaxPool1d(9),
    )  # fmt: skip


def volumes() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm3d(6), nn.PReLU(6),
        nn.MaxPool3d(2), nn.Conv3d(6, 6, 3, groups=3), nn.Hardswish(), nn.ConvTranspose3d(6, 2, 2),
        nn.Upsample(scale_factor=2, mode="trilinear"), nn.AvgPool3d(3, 2, 1),
    )  # fmt: skip


def layers_case(name: str) -> Case:
    draw, tokens = torch.randn, torch.randint(1, 40, (3, 9))
    recurrent: dict[str, tuple[str, dict[str, Any]]] = {
        "lstm": ("LSTM", {}), "lstm_projected": ("LSTM", {"bidirectional": True, "proj_size": 5}),
        "gru": ("GRU", {"bidirectional": True}), "rnn": ("RNN", {"nonlinearity": "relu"}),
    }  # fmt: skip
    if name in recurrent:
        kind, options = recurrent[name]
        model = Recurrent(kind, **options)
        model(tokens)  # sizes of the lazy head
        return Case(model, (tokens[:2],), (tokens,))
    match name:
        case "transformer":
            net: nn.Module = nn.Transformer(16, 4, 2, 2, 32, batch_first=True, norm_first=True)
            given = {"src": draw(3, 7, 16), "tgt": draw(3, 5, 16)}
            mask = {"tgt_mask": nn.Transformer.generate_square_subsequent_mask(5)}
            return Case(net, {k: v[:2] for k, v in given.items()} | mask, given | mask)
        case "encoder":
            layer = nn.TransformerEncoderLayer(16, 4, 32, activation="gelu", batch_first=True)
            padded = torch.zeros(3, 7, dtype=torch.bool)
            padded[0, 5:] = True
            given = {"src": draw(3, 7, 16), "src_key_padding_mask": padded}
            net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            return Case(net, {k: v[:2] for k, v in given.items()}, given)
        case "bags":
            return Case(Bags(), (tokens.flatten(), torch.tensor([0, 4, 4, 20])))
        case "attention":
            padded = torch.zeros(3, 5, dtype=torch.bool)
            padded[1, 3:] = True
            return Case(Attention(), (draw(3, 7, 16), draw(3, 5, 12), draw(3, 5, 10), padded))
        case "unet":
            return Case(lively(UNet()), (draw(2, 3, 26, 31),), (draw(3, 3, 26, 31),))
        case "autoencoder":
            return Case(Autoencoder(), (torch.rand(2, 1, 28, 28), draw(2, 5)))
        case "generator":
            return Case(lively(generator()), (draw(2, 12, 1, 1),), (draw(3, 12, 1, 1),))
        case "discriminator":
            return Case(lively(Discriminator()), (draw(2, 3, 32, 32),))
        case "waves":
            return Case(lively(waves()), (draw(2, 2, 33),), (draw(3, 2, 33),))
        case "volumes":
            return Case(lively(volumes()), (draw(2, 2, 9, 10, 11),), (draw(3, 2, 9, 10, 11),))
    raise ValueError(name)


LAYERS_CASES = (
    "lstm", "lstm_projected", "gru", "rnn", "transformer", "encoder", "bags", "attention", "unet",
    "autoencoder", "generator", "discriminator", "waves", "volumes",
)  # fmt: skip


@cache
def cases(library: str) -> Mapping[str, Callable[[], Case]]:
    """Name -> factory. Errors: `ValueError` for a library that is not known."""
    tables: dict[str, tuple[Callable[[str], Case], Any]] = {
        "timm": (timm_case, TIMM),
        "transformers": (transformers_case, TRANSFORMERS),
        "layers": (layers_case, LAYERS_CASES),
        "torchvision": (
            torchvision_case, (*CLASSIFIERS, *SEGMENTATION, *VIDEO, *FLOW, *DETECTION)
        ),
    }  # fmt: skip
    if library not in tables:
        raise ValueError(f"no library {library!r}; there are {', '.join(tables)}")
    make, names = tables[library]
    return {n: partial(make, n) for n in names}
