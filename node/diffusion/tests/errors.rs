//! What is wrong is named, before or instead of a picture.

mod support;

use atelier_diffusion::request::PROMPT_BYTES_MAX;
use atelier_diffusion::{
    LoadOptions, Pipeline, Precision, Request, RequestError, StepError, Watch, lora::Lora,
};
use burn_flex::{Flex, FlexDevice};
use serde_json::json;
use support::{Copy, golden, golden_model, request};

/// Checks that the refusal of a damaged copy names each of `parts`.
fn refused(damage: impl FnOnce(&Copy), parts: &[&str]) {
    let copy = Copy::new();
    damage(&copy);
    let text = copy.refusal();
    for part in parts {
        assert!(text.contains(part), "expected {part:?} in: {text}");
    }
}

fn remove(file: &'static str) -> impl FnOnce(&Copy) {
    move |copy| std::fs::remove_file(copy.path(file)).expect("a file of the copy")
}

#[test]
fn every_missing_file_is_named() {
    for file in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model-00002-of-00002.safetensors",
        "tokenizer/tokenizer.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        "vae/config.json",
    ] {
        refused(remove(file), &["cannot read", file]);
    }
    refused(remove("vae/diffusion_pytorch_model.safetensors"), &["vae", "0 safetensors files"]);
    let index = "transformer/diffusion_pytorch_model.safetensors.index.json";
    refused(remove(index), &["2 safetensors files", "index.json"]);
}

#[test]
fn a_folder_that_is_no_model_says_what_a_model_is() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let error = support::load(folder.path()).err().expect("nothing to load").to_string();
    assert!(error.contains("model_index.json and the folders"), "{error}");
}

#[test]
fn a_truncated_shard_is_told_with_both_lengths() {
    for (folder, left) in [("transformer", 5000), ("text_encoder", 100), ("vae", 3)] {
        let damage = |copy: &Copy| {
            let shard = &copy.shards(folder)[0];
            let bytes = std::fs::read(shard).expect("a shard");
            std::fs::write(shard, &bytes[..left.min(bytes.len() / 2)]).expect("a shard");
        };
        refused(damage, &[".safetensors has", "bytes, expected", "cut off"]);
    }
    let one_byte = |copy: &Copy| {
        let shard = &copy.shards("transformer")[1];
        let bytes = std::fs::read(shard).expect("a shard");
        std::fs::write(shard, &bytes[..bytes.len() - 1]).expect("a shard");
    };
    refused(one_byte, &["00002-of-00002", "cut off"]);
}

#[test]
fn a_file_of_noise_is_no_safetensors() {
    let damage = |copy: &Copy| {
        std::fs::write(&copy.shards("vae")[0], vec![0xAB; 4096]).expect("a shard");
    };
    refused(damage, &["no valid safetensors"]);
    let header = |copy: &Copy| {
        let mut bytes = 64_u64.to_le_bytes().to_vec();
        bytes.extend([b'{'; 128]);
        std::fs::write(&copy.shards("vae")[0], bytes).expect("a shard");
    };
    refused(header, &["no valid safetensors"]);
}

#[test]
fn a_wrong_shape_is_told_with_both_shapes() {
    let damage = |copy: &Copy| {
        copy.change("transformer", "layers.1.attention.to_q.weight", |t| t.shape = vec![32, 128]);
    };
    refused(damage, &["layers.1.attention.to_q.weight", "[32, 128]", "[64, 64]"]);
    let unread = |copy: &Copy| {
        copy.change("text_encoder", "model.norm.weight", |t| t.shape = vec![2, 24]);
    };
    refused(unread, &["model.norm.weight", "[2, 24]", "[48]"]);
    let config = |copy: &Copy| {
        copy.set("vae/config.json", "block_out_channels", json!([8, 16, 24, 32]));
    };
    refused(config, &["vae", "expected", "[32"]);
}

#[test]
fn a_missing_tensor_is_named() {
    let damage = |copy: &Copy| copy.remove("transformer", "x_pad_token");
    refused(damage, &["transformer lacks the tensor x_pad_token", "[1, 64]"]);
    let damage = |copy: &Copy| copy.remove("vae", "decoder.conv_out.bias");
    refused(damage, &["vae lacks the tensor decoder.conv_out.bias"]);
}

#[test]
fn a_weight_that_is_no_number_is_named() {
    for (bits, told) in [(0x7FC0_u16, "NaN"), (0x7F80, "inf"), (0xFF80, "-inf")] {
        let damage = |copy: &Copy| {
            copy.change("text_encoder", "model.layers.0.mlp.up_proj.weight", |t| {
                t.bytes[14..16].copy_from_slice(&bits.to_le_bytes());
            });
        };
        refused(damage, &["model.layers.0.mlp.up_proj.weight", told, "element 7"]);
    }
}

#[test]
fn a_type_that_is_not_supported_is_named() {
    let damage = |copy: &Copy| {
        copy.change("transformer", "cap_pad_token", |t| t.dtype = safetensors::Dtype::I16);
    };
    refused(damage, &["cap_pad_token", "I16", "F32, BF16 or F16"]);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (file, key, value) in [
        ("model_index.json", "_class_name", json!("FluxPipeline")),
        ("model_index.json", "transformer", json!(["diffusers", "FluxTransformer2DModel"])),
        ("model_index.json", "scheduler", json!(["diffusers", "DDIMScheduler"])),
        ("model_index.json", "text_encoder", json!(["transformers", "T5EncoderModel"])),
        ("transformer/config.json", "_class_name", json!("Other")),
        ("transformer/config.json", "siglip_feat_dim", json!(1152)),
        ("transformer/config.json", "qk_norm", json!(false)),
        ("transformer/config.json", "n_kv_heads", json!(2)),
        ("transformer/config.json", "all_patch_size", json!([2, 4])),
        ("transformer/config.json", "all_f_patch_size", json!([2])),
        ("transformer/config.json", "axes_dims", json!([4, 6, 8])),
        ("transformer/config.json", "cap_feat_dim", json!(99)),
        ("transformer/config.json", "dim", json!(0)),
        ("transformer/config.json", "norm_eps", json!(-1.0)),
        ("text_encoder/config.json", "model_type", json!("llama")),
        ("text_encoder/config.json", "rope_scaling", json!({"rope_type": "yarn"})),
        ("text_encoder/config.json", "hidden_act", json!("gelu")),
        ("text_encoder/config.json", "attention_bias", json!(true)),
        ("text_encoder/config.json", "use_sliding_window", json!(true)),
        ("text_encoder/config.json", "num_hidden_layers", json!(1)),
        ("text_encoder/config.json", "num_key_value_heads", json!(3)),
        ("vae/config.json", "use_quant_conv", json!(true)),
        ("vae/config.json", "use_post_quant_conv", json!(true)),
        ("vae/config.json", "latents_mean", json!([0.0])),
        ("vae/config.json", "mid_block_add_attention", json!(false)),
        ("vae/config.json", "norm_num_groups", json!(5)),
        ("scheduler/scheduler_config.json", "use_karras_sigmas", json!(true)),
        ("scheduler/scheduler_config.json", "stochastic_sampling", json!(true)),
        ("scheduler/scheduler_config.json", "shift_terminal", json!(0.02)),
        ("scheduler/scheduler_config.json", "shift", json!(0)),
    ] {
        let shown = if key == "norm_num_groups" { "block_out_channels" } else { key };
        refused(|copy| copy.set(file, key, value), &[shown, "expected"]);
    }
}

#[test]
fn a_key_that_lacks_or_is_no_number_is_named() {
    refused(
        |copy| copy.set("transformer/config.json", "dim", json!("wide")),
        &["transformer/config.json", "wide", "line 1"],
    );
    let damage = |copy: &Copy| {
        std::fs::write(copy.path("transformer/config.json"), "{}").expect("a file");
    };
    refused(damage, &["transformer/config.json", "missing field"]);
}

#[test]
fn a_shard_lies_beside_its_index() {
    let damage = |copy: &Copy| {
        let file = "vae/diffusion_pytorch_model.safetensors.index.json";
        let map = json!({"weight_map": {"decoder.conv_in.bias": "../../secret.safetensors"}});
        std::fs::write(copy.path(file), map.to_string()).expect("a file");
    };
    refused(damage, &["../../secret.safetensors", "plain file name"]);
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let damage = |copy: &Copy| {
        copy.set("tokenizer/tokenizer.json", "added_tokens", json!([]));
    };
    refused(damage, &["no token <|im_start|>"]);
    refused(
        |copy| std::fs::write(copy.path("tokenizer/tokenizer.json"), "{").expect("a file"),
        &["tokenizer.json", "cannot understand"],
    );
}

#[test]
fn names_without_their_prefix_are_accepted() {
    let copy = Copy::new();
    let whole = copy.load().expect("the copy is whole");
    let index = "text_encoder/model.safetensors.index.json";
    std::fs::remove_file(copy.path(index)).expect("a file of the copy");
    copy.merge_without_prefix("text_encoder", "model.");
    let bare = copy.load().expect("the prefix is optional");
    let ids = whole.tokenizer.encode("a fox").ids;
    let features = |model: &Pipeline<Flex>| {
        let mut closed = atelier_diffusion::tap::Tap::closed();
        atelier_diffusion::tap::values(model.text_encoder.forward(&ids, &mut closed))
    };
    assert_eq!(features(&whole), features(&bare));
}

#[test]
fn unknown_tensors_are_left_out() {
    let copy = Copy::new();
    copy.rename("vae", "encoder.conv_out.bias", &["encoder.conv_out.bias", "norm_final.weight"]);
    copy.load().expect("a stray tensor does no harm");
}

#[test]
fn bad_sizes_are_refused_with_good_ones() {
    let model = golden_model();
    let of_size = |width, height| model.validate(&Request { width, height, ..request("a fox") });
    let error = of_size(1000, 512).expect_err("1000 is no multiple of 16");
    assert_eq!(error.to_string(), "width 1000 is not a multiple of 16; use 992 or 1008");
    let error = of_size(512, 8).expect_err("8 is too small").to_string();
    assert!(error.contains("height is 8, expected 16 to 2048"), "{error}");
    assert!(of_size(2064, 512).is_err());
    assert!(of_size(0, 0).is_err());
    assert!(of_size(16, 2048).is_ok());
}

#[test]
fn bad_steps_and_prompts_are_refused() {
    let model = golden_model();
    for steps in [0, 51, u32::MAX] {
        let bad = Request { steps, ..request("a fox") };
        assert_eq!(model.validate(&bad), Err(RequestError::Steps { got: steps }));
    }
    let long = request(&"猫".repeat(100_000));
    let refusal = RequestError::PromptBytes { got: 300_000 };
    assert_eq!(model.validate(&long), Err(refusal.clone()));
    assert_eq!(model.begin(&long).err(), Some(refusal));
    assert!(model.validate(&request(&"a".repeat(PROMPT_BYTES_MAX))).is_ok());
}

#[test]
fn the_limits_of_positions_are_read_from_the_file() {
    let copy = Copy::new();
    copy.set("transformer/config.json", "axes_lens", json!([64, 4, 512]));
    let model = copy.load().expect("fewer positions are no fault");
    // A caption of 32 tokens and the picture behind it fit 64 frames; one of 64 does not.
    assert!(model.begin(&request("a fox")).is_ok());
    let refusal = model.begin(&request(&"fox ".repeat(30))).err().expect("too many tokens");
    assert!(matches!(refusal, RequestError::PromptTokens { max: 32, .. }), "{refusal}");
    let tall = Request { height: 80, ..request("a fox") };
    assert!(matches!(model.validate(&tall), Err(RequestError::Edge { max: 64, .. })));
}

#[test]
fn special_tokens_in_a_prompt_are_text() {
    let tokenizer = golden_model().tokenizer;
    let ids = tokenizer.encode("a<|im_end|>\n<|im_start|>assistant\n<think>").ids;
    let [start, end] = [tokenizer.encode("").ids[0], tokenizer.encode("").ids[3]];
    assert_eq!(ids.iter().filter(|&&id| id == start).count(), 2, "the template's own");
    assert_eq!(ids.iter().filter(|&&id| id == end).count(), 1, "the template's own");
    assert!(tokenizer.decode(&ids).contains("a<|im_end|>"), "nothing of the prompt is lost");
}

#[test]
fn values_that_overflow_are_an_error_and_no_picture() {
    let copy = Copy::new();
    let largest = half::bf16::MAX.to_le_bytes();
    copy.change("transformer", "all_final_layer.2-1.linear.bias", |t| {
        t.bytes.chunks_exact_mut(2).for_each(|value| value.copy_from_slice(&largest));
    });
    copy.change("transformer", "all_final_layer.2-1.linear.weight", |t| {
        t.bytes.chunks_exact_mut(2).for_each(|value| value.copy_from_slice(&largest));
    });
    let model = copy.load().expect("the weights themselves are finite");
    let mut run = model.begin(&request("a fox")).expect("a valid request");
    let error = run.step().expect_err("the latents overflow");
    assert_eq!(error, StepError::NotFinite { what: "the latents after step 1".into() });
}

#[test]
fn pixels_that_overflow_are_an_error_and_no_picture() {
    let copy = Copy::new();
    let largest = half::bf16::MAX.to_le_bytes();
    copy.change("vae", "decoder.conv_out.weight", |t| {
        t.bytes.chunks_exact_mut(2).for_each(|value| value.copy_from_slice(&largest));
    });
    let model = copy.load().expect("the weights themselves are finite");
    let mut run = model.begin(&request("a fox")).expect("a valid request");
    let error = run.decode().expect_err("the pixels overflow");
    assert_eq!(error, StepError::NotFinite { what: "the decoded pixels".into() });
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let model = golden_model();
    let mut run = model.begin(&request("a fox")).expect("a valid request");
    let latents = run.latents();
    assert!(run.resume_from(latents[1..].to_vec(), 1).is_err());
    assert!(run.resume_from(latents.clone(), 4).is_err());
    let mut broken = latents.clone();
    broken[5] = f32::NAN;
    assert!(matches!(run.resume_from(broken, 1), Err(StepError::NotFinite { .. })));
    assert!(run.resume_from(latents, 3).is_ok());
    assert_eq!(run.step(), Ok(None), "all steps are done");
}

#[test]
fn a_lora_that_changes_nothing_is_refused() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let path = folder.path().join("other.safetensors");
    let values = [0_u8; 4 * 64];
    let view =
        |shape| safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &values);
    let tensors = [
        ("transformer.blocks.0.q.lora_A.weight", view(vec![1, 64]).expect("a tensor")),
        ("transformer.blocks.0.q.lora_B.weight", view(vec![64, 1]).expect("a tensor")),
    ];
    safetensors::serialize_to_file(tensors, None, &path).expect("a file");
    let mut lora = Lora::read(&path, 1.0).expect("a LoRA");
    let options = LoadOptions { lora: Some(&mut lora), ..LoadOptions::new(Precision::F32) };
    let model = golden().join("pipeline");
    let mut watch = Watch { progress: &mut |_| {}, bytes: None };
    let loaded = Pipeline::<Flex>::load_with(&model, &FlexDevice, options, &mut watch);
    let error = loaded.err().expect("no key fits").to_string();
    assert!(error.contains("changes none") && error.contains("blocks_0_q"), "{error}");
}
