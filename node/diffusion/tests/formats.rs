//! What other programs store the same weights as is loaded to the same picture.

mod support;

use half::f16;
use safetensors::Dtype;
use support::{Copy, Stored};

fn stored(name: impl Into<String>, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Stored {
    Stored { name: name.into(), dtype, shape: shape.to_vec(), bytes }
}

/// The golden transformer as ComfyUI stores it.
fn comfyui(tensors: Vec<Stored>, prefix: &str) -> Vec<Stored> {
    let mut theirs: Vec<Stored> = Vec::new();
    let find = |name: String| tensors.iter().find(|t| t.name == name).expect("q, k and v").clone();
    for tensor in &tensors {
        let mut tensor = tensor.clone();
        if tensor.name.contains(".to_k.") || tensor.name.contains(".to_v.") {
            continue;
        }
        if tensor.name.contains(".to_q.") {
            for part in [".to_k.", ".to_v."] {
                tensor.bytes.extend(find(tensor.name.replace(".to_q.", part)).bytes);
            }
            tensor.shape[0] *= 3;
        }
        if tensor.name.ends_with("_pad_token") {
            tensor.shape.remove(0);
        }
        for (ours, other) in [
            ("all_x_embedder.2-1.", "x_embedder."),
            ("all_final_layer.2-1.", "final_layer."),
            (".to_q.", ".qkv."),
            (".to_out.0.", ".out."),
            (".norm_q.", ".q_norm."),
            (".norm_k.", ".k_norm."),
        ] {
            tensor.name = tensor.name.replace(ours, other);
        }
        tensor.name = format!("{prefix}{}", tensor.name);
        theirs.push(tensor);
    }
    // Such files carry a stray tensor.
    theirs.push(stored(format!("{prefix}norm_final.weight"), Dtype::F32, &[1], vec![0; 4]));
    theirs
}

#[test]
fn a_comfyui_single_file_draws_the_same() {
    let golden = Copy::new().picture();
    for prefix in ["", "model.diffusion_model."] {
        let copy = Copy::new();
        let theirs = comfyui(copy.tensors("transformer"), prefix);
        assert!(theirs.iter().any(|t| t.name.ends_with("layers.0.attention.qkv.weight")));
        copy.replace("transformer", "z_image_turbo_bf16.safetensors", &theirs);
        assert!(copy.picture() == golden, "with the prefix {prefix:?}");
    }
}

#[test]
fn fused_rows_of_a_wrong_count_are_refused_with_both_shapes() {
    let copy = Copy::new();
    let mut theirs = comfyui(copy.tensors("transformer"), "");
    let qkv = theirs.iter_mut().find(|t| t.name == "layers.0.attention.qkv.weight");
    let qkv = qkv.expect("a fused tensor");
    qkv.shape = vec![qkv.shape[0] / 2, qkv.shape[1] * 2];
    copy.replace("transformer", "z_image.safetensors", &theirs);
    let text = copy.refusal();
    assert!(
        text.contains("layers.0.attention.to_q.weight has shape")
            || text.contains("expected [64, 64]"),
        "{text}"
    );
}

#[test]
fn an_original_autoencoder_draws_the_same() {
    let golden = Copy::new().picture();
    let copy = Copy::new();
    let mut tensors = copy.tensors("vae");
    for tensor in &mut tensors {
        let mut name = tensor.name.clone();
        for (ours, theirs) in [
            ("mid_block.resnets.0.", "mid.block_1."),
            ("mid_block.resnets.1.", "mid.block_2."),
            ("mid_block.attentions.0.group_norm.", "mid.attn_1.norm."),
            ("mid_block.attentions.0.to_q.", "mid.attn_1.q."),
            ("mid_block.attentions.0.to_k.", "mid.attn_1.k."),
            ("mid_block.attentions.0.to_v.", "mid.attn_1.v."),
            ("mid_block.attentions.0.to_out.0.", "mid.attn_1.proj_out."),
            (".downsamplers.0.", ".downsample."),
            (".upsamplers.0.", ".upsample."),
            ("encoder.down_blocks.", "encoder.down."),
            (".resnets.", ".block."),
            ("conv_shortcut", "nin_shortcut"),
            ("conv_norm_out", "norm_out"),
        ] {
            name = name.replace(ours, theirs);
        }
        for i in 0..4 {
            name =
                name.replace(&format!("decoder.up_blocks.{i}."), &format!("decoder.up.{}.", 3 - i));
        }
        if name.contains("attn_1") && tensor.shape.len() == 2 {
            tensor.shape.extend([1, 1]);
        }
        tensor.name = name;
    }
    assert!(tensors.iter().all(|t| !t.name.contains("_blocks.") && !t.name.contains("resnets")));
    copy.replace("vae", "ae.safetensors", &tensors);
    assert!(copy.picture() == golden);
}

#[test]
fn a_text_encoder_under_comfyuis_file_name_draws_the_same() {
    let golden = Copy::new().picture();
    let copy = Copy::new();
    copy.replace("text_encoder", "qwen_3_4b.safetensors", &copy.tensors("text_encoder"));
    assert!(copy.picture() == golden);
}

fn floats(tensor: &Stored) -> Vec<f32> {
    assert_eq!(tensor.dtype, Dtype::BF16, "the golden model's own type");
    let (pairs, _) = tensor.bytes.as_chunks::<2>();
    pairs.iter().map(|pair| half::bf16::from_le_bytes(*pair).to_f32()).collect()
}

fn as_f32(name: &str, shape: &[usize], values: &[f32]) -> Stored {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    stored(name, Dtype::F32, shape, bytes)
}

/// The value of an E4M3 code, by the definition of the format.
fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let size = if exponent == 0 {
        mantissa * 2.0_f32.powi(-9)
    } else {
        (8.0 + mantissa) * 2.0_f32.powi(exponent - 10)
    };
    if code < 128 { size } else { -size }
}

fn nearest_e4m3(value: f32) -> u8 {
    let codes = (0..=255_u8).filter(|code| code & 0x7F != 0x7F);
    let off = |code: &u8| (e4m3(*code) - value).abs();
    codes.min_by(|a, b| off(a).total_cmp(&off(b))).expect("there are codes")
}

/// A transformer in FP8 and the same values in F32, with or without a scale for each weight.
fn in_fp8(tensors: &[Stored], scale: Option<f32>) -> (Vec<Stored>, Vec<Stored>) {
    let (mut small, mut wide) = (Vec::new(), Vec::new());
    for tensor in tensors {
        let is_linear = tensor.shape.len() == 2 && tensor.name.ends_with(".weight");
        if !is_linear {
            small.push(tensor.clone());
            wide.push(tensor.clone());
            continue;
        }
        let factor = scale.unwrap_or(1.0);
        let codes: Vec<u8> = floats(tensor).iter().map(|v| nearest_e4m3(v / factor)).collect();
        let values: Vec<f32> = codes.iter().map(|code| e4m3(*code) * factor).collect();
        wide.push(as_f32(&tensor.name, &tensor.shape, &values));
        small.push(stored(&tensor.name, Dtype::F8_E4M3, &tensor.shape, codes));
        if let Some(scale) = scale {
            let stem = tensor.name.trim_end_matches(".weight");
            small.push(as_f32(&format!("{stem}.scale_weight"), &[], &[scale]));
            small.push(as_f32(&format!("{stem}.scale_input"), &[], &[1.0]));
        }
    }
    if scale.is_some() {
        small.push(stored("scaled_fp8", Dtype::F8_E4M3, &[0], Vec::new()));
    }
    (small, wide)
}

#[test]
fn fp8_weights_are_widened_while_they_are_loaded() {
    let golden = Copy::new().picture();
    for scale in [None, Some(0.0625)] {
        let (small, wide) = (Copy::new(), Copy::new());
        let (in_small, in_wide) = in_fp8(&small.tensors("transformer"), scale);
        small.replace("transformer", "z_image_turbo_fp8_e4m3fn.safetensors", &in_small);
        wide.replace("transformer", "widened.safetensors", &in_wide);
        let picture = small.picture();
        assert!(picture == wide.picture(), "with the scale {scale:?}");
        assert!(picture != golden, "eight bits are not sixteen");
    }
}

#[test]
fn a_scale_for_each_row_is_refused_and_not_left_out() {
    let copy = Copy::new();
    let (mut small, _) = in_fp8(&copy.tensors("transformer"), Some(0.5));
    let scale = small.iter_mut().find(|t| t.name.ends_with(".scale_weight")).expect("a scale");
    *scale = as_f32(&scale.name.clone(), &[2], &[0.5, 0.25]);
    let stem = scale.name.trim_end_matches(".scale_weight").to_owned();
    copy.replace("transformer", "rows.safetensors", &small);
    let text = copy.refusal();
    assert!(text.contains(&format!("{stem}.weight")) && text.contains("NaN"), "{text}");
}

/// A tensor of a GGUF file: the number of its type, and its bytes.
struct Quantised {
    name: String,
    shape: Vec<usize>,
    kind: u32,
    bytes: Vec<u8>,
}

/// Writes a GGUF file of version 3, with metadata of several types before the tensors.
fn gguf(tensors: &[Quantised]) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    let string = |file: &mut Vec<u8>, text: &str| {
        file.extend((text.len() as u64).to_le_bytes());
        file.extend(text.as_bytes());
    };
    file.extend(3_u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend(4_u64.to_le_bytes());
    string(&mut file, "general.architecture");
    file.extend(8_u32.to_le_bytes());
    string(&mut file, "lumina2");
    string(&mut file, "general.alignment");
    file.extend(4_u32.to_le_bytes());
    file.extend(64_u32.to_le_bytes());
    string(&mut file, "tokens");
    file.extend([9_u32, 8].map(u32::to_le_bytes).as_flattened());
    file.extend(2_u64.to_le_bytes());
    string(&mut file, "a");
    string(&mut file, "b");
    string(&mut file, "weights");
    file.extend([9_u32, 6].map(u32::to_le_bytes).as_flattened());
    file.extend(3_u64.to_le_bytes());
    file.extend([0.5_f32; 3].map(f32::to_le_bytes).as_flattened());
    let mut offset = 0_u64;
    for tensor in tensors {
        string(&mut file, &tensor.name);
        file.extend((tensor.shape.len() as u32).to_le_bytes());
        for axis in tensor.shape.iter().rev() {
            file.extend((*axis as u64).to_le_bytes());
        }
        file.extend(tensor.kind.to_le_bytes());
        file.extend(offset.to_le_bytes());
        offset += (tensor.bytes.len() as u64).next_multiple_of(64);
    }
    for tensor in tensors {
        file.resize(file.len().next_multiple_of(64), 0);
        file.extend(&tensor.bytes);
    }
    file
}

/// Quantises as ggml does: a factor for 32 values; gives the bytes and what they mean.
fn quantise(values: &[f32], bits: u32) -> (Vec<u8>, Vec<f32>) {
    let (mut bytes, mut meaning) = (Vec::new(), Vec::new());
    for block in values.chunks(32) {
        let most = block.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        let levels = if bits == 8 { 127.0 } else { 7.0 };
        let factor = f16::from_f32(most / levels);
        bytes.extend(factor.to_le_bytes());
        let factor = factor.to_f32();
        let number =
            |v: &f32| if factor == 0.0 { 0.0 } else { (v / factor).round().clamp(-levels, levels) };
        let numbers: Vec<f32> = block.iter().map(number).collect();
        meaning.extend(numbers.iter().map(|number| factor * number));
        if bits == 8 {
            bytes.extend(numbers.iter().map(|number| (*number as i8).cast_unsigned()));
        } else {
            let code = |i: usize| (numbers[i] + 8.0) as u8;
            bytes.extend((0..16).map(|i| code(i) | code(i + 16) << 4));
        }
    }
    (bytes, meaning)
}

/// Tensors as a GGUF file has them, and the same values in F32.
fn in_gguf(tensors: &[Stored], bits: u32) -> (Vec<Quantised>, Vec<Stored>) {
    let mut wide = Vec::new();
    let quantised = tensors.iter().map(|tensor| {
        let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
        let plain =
            |kind, bytes| Quantised { name: name.clone(), shape: shape.clone(), kind, bytes };
        let row = shape.last().copied().unwrap_or(0);
        if tensor.dtype == Dtype::F32 {
            wide.push(tensor.clone());
            return plain(0, tensor.bytes.clone());
        }
        if shape.len() < 2 || row % 32 != 0 {
            wide.push(tensor.clone());
            return plain(30, tensor.bytes.clone());
        }
        let (bytes, meaning) = quantise(&floats(tensor), bits);
        wide.push(as_f32(&name, &shape, &meaning));
        plain(if bits == 8 { 8 } else { 2 }, bytes)
    });
    (quantised.collect(), wide)
}

#[test]
fn quantised_gguf_weights_are_widened_while_they_are_loaded() {
    for bits in [8, 4] {
        let (small, wide) = (Copy::new(), Copy::new());
        let theirs = comfyui(small.tensors("transformer"), "");
        let (quantised, in_wide) = in_gguf(&theirs, bits);
        assert!(quantised.iter().filter(|t| t.kind == if bits == 8 { 8 } else { 2 }).count() > 20);
        let path = small.cleared("transformer", "z_image_turbo.gguf");
        std::fs::write(path, gguf(&quantised)).expect("a file of the copy");
        wide.replace("transformer", "widened.safetensors", &in_wide);
        assert!(small.picture() == wide.picture(), "{bits} bits");
    }
}

#[test]
fn a_text_encoder_of_llama_cpp_draws_the_same() {
    let golden = Copy::new().picture();
    let copy = Copy::new();
    let mut tensors = copy.tensors("text_encoder");
    for tensor in &mut tensors {
        for (ours, theirs) in [
            ("model.embed_tokens.", "token_embd."),
            ("model.norm.", "output_norm."),
            ("model.layers.", "blk."),
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("self_attn.q_norm", "attn_q_norm"),
            ("self_attn.k_norm", "attn_k_norm"),
            ("post_attention_layernorm", "ffn_norm"),
            ("input_layernorm", "attn_norm"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
        ] {
            tensor.name = tensor.name.replace(ours, theirs);
        }
    }
    let kept = tensors.into_iter().map(|t| Quantised {
        name: t.name,
        shape: t.shape,
        kind: 30,
        bytes: t.bytes,
    });
    let path = copy.cleared("text_encoder", "qwen3-4b-bf16.gguf");
    std::fs::write(path, gguf(&kept.collect::<Vec<_>>())).expect("a file of the copy");
    assert!(copy.picture() == golden);
}

#[test]
fn a_gguf_type_that_is_not_supported_is_named() {
    let copy = Copy::new();
    let (mut quantised, _) = in_gguf(&comfyui(copy.tensors("transformer"), ""), 8);
    let tensor = quantised.iter_mut().find(|t| t.kind == 8).expect("a quantised tensor");
    (tensor.kind, tensor.bytes) = (12, Vec::new());
    let path = copy.cleared("transformer", "z_image_turbo-Q4_K.gguf");
    std::fs::write(path, gguf(&quantised)).expect("a file of the copy");
    let text = copy.refusal();
    assert!(text.contains("has type Q4_K") && text.contains("Q8_0 or Q4_0"), "{text}");
}

#[test]
fn a_damaged_gguf_is_refused_wherever_it_is_cut_or_changed() {
    let copy = Copy::new();
    let tensors = [Quantised { name: "x".into(), shape: vec![2, 32], kind: 8, bytes: vec![1; 68] }];
    let whole = gguf(&tensors);
    let path = copy.cleared("transformer", "z_image_turbo.gguf");
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).expect("a file of the copy");
        let text = copy.refusal();
        assert!(text.contains("z_image_turbo.gguf"), "cut after {length}: {text}");
    }
    for at in 4..whole.len() - 68 {
        for byte in [0x00, 0x7F, 0xFF] {
            let mut changed = whole.clone();
            changed[at] = byte;
            std::fs::write(&path, &changed).expect("a file of the copy");
            // Whatever it is now, it is no transformer; nothing panics and nothing is reserved for it.
            copy.refusal();
        }
    }
}
