//! The names that other programs give to the same tensors.
//!
//! Owns the dialects: each stored name becomes the reference's name or names. A dialect is known by
//! the keys themselves, so a folder may hold any of them and no setting names it.
//!
//! | component | dialects |
//! |---|---|
//! | `transformer` | diffusers; ComfyUI's single file and its GGUF, with fused `attention.qkv` |
//! | `text_encoder` | transformers with or without `model.`; `qwen_3_4b.safetensors`; llama.cpp's GGUF |
//! | `vae` | diffusers; the original `ae.safetensors` |
//!
//! Refused: a table of all names of the real checkpoint. The rules below hold for any depth.

/// What one stored tensor is: the reference's names, one behind the other along the first axis.
pub(crate) type Meaning = Vec<String>;

/// Tells the names of one component's files.
#[derive(Debug)]
pub(crate) struct Dialect {
    component: &'static str,
    /// Blocks of the original decoder, which counts them from the other end.
    up_blocks: usize,
}

/// What stands before all names in files that hold more than one component.
const OUTER: [&str; 4] =
    ["model.diffusion_model.", "diffusion_model.", "first_stage_model.", "vae."];

impl Dialect {
    pub(crate) fn new<'a>(component: &'static str, names: impl Iterator<Item = &'a str>) -> Self {
        let number = |name: &str| {
            let rest = strip_outer(name).strip_prefix("decoder.up.")?;
            rest.split('.').next()?.parse::<usize>().ok()
        };
        // A name comes from outside: a decoder has no more than some blocks.
        let last = names.filter_map(number).max().map_or(0, |last| last.min(64) + 1);
        Self { component, up_blocks: last }
    }

    /// The reference's names for a stored name.
    pub(crate) fn meaning(&self, name: &str) -> Meaning {
        match self.component {
            "text_encoder" => vec![text_encoder(name)],
            "vae" => vec![self.autoencoder(strip_outer(name))],
            _ => transformer(strip_outer(name)),
        }
    }

    fn autoencoder(&self, name: &str) -> String {
        let Some((side, rest)) = name.split_once('.') else { return name.to_owned() };
        if !matches!(side, "encoder" | "decoder") {
            return name.to_owned();
        }
        let parts: Vec<&str> = rest.split('.').collect();
        let rest = match parts[..] {
            ["down", i, "block", r, ref rest @ ..] => {
                format!("down_blocks.{i}.resnets.{r}.{}", resnet(rest))
            }
            ["down", i, "downsample", ref rest @ ..] => {
                format!("down_blocks.{i}.downsamplers.0.{}", rest.join("."))
            }
            ["up", i, "block", r, ref rest @ ..] => {
                format!("up_blocks.{}.resnets.{r}.{}", self.block_number(i), resnet(rest))
            }
            ["up", i, "upsample", ref rest @ ..] => {
                format!("up_blocks.{}.upsamplers.0.{}", self.block_number(i), rest.join("."))
            }
            ["mid", "block_1", ref rest @ ..] => format!("mid_block.resnets.0.{}", resnet(rest)),
            ["mid", "block_2", ref rest @ ..] => format!("mid_block.resnets.1.{}", resnet(rest)),
            ["mid", "attn_1", part, ref rest @ ..] => {
                let part = match part {
                    "norm" => "group_norm",
                    "q" => "to_q",
                    "k" => "to_k",
                    "v" => "to_v",
                    "proj_out" => "to_out.0",
                    other => other,
                };
                format!("mid_block.attentions.0.{part}.{}", rest.join("."))
            }
            ["norm_out", ref rest @ ..] => format!("conv_norm_out.{}", rest.join(".")),
            _ => rest.to_owned(),
        };
        format!("{side}.{rest}")
    }

    /// The original counts up blocks from the finest, the reference from the coarsest.
    fn block_number(&self, i: &str) -> String {
        let number = i.parse().ok().and_then(|i: usize| (self.up_blocks).checked_sub(i + 1));
        number.map_or_else(|| i.to_owned(), |number| number.to_string())
    }
}

fn strip_outer(name: &str) -> &str {
    OUTER.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}

fn resnet(rest: &[&str]) -> String {
    rest.join(".").replace("nin_shortcut", "conv_shortcut")
}

fn transformer(name: &str) -> Meaning {
    if let Some((stem, kind)) = name.split_once(".attention.qkv.") {
        return ["to_q", "to_k", "to_v"].map(|p| format!("{stem}.attention.{p}.{kind}")).to_vec();
    }
    // The only patch that this model has.
    for (theirs, ours) in
        [("x_embedder.", "all_x_embedder.2-1."), ("final_layer.", "all_final_layer.2-1.")]
    {
        if let Some(rest) = name.strip_prefix(theirs) {
            return vec![format!("{ours}{rest}")];
        }
    }
    for (theirs, ours) in [
        (".attention.out.", ".attention.to_out.0."),
        (".attention.q_norm.", ".attention.norm_q."),
        (".attention.k_norm.", ".attention.norm_k."),
    ] {
        if name.contains(theirs) {
            return vec![name.replacen(theirs, ours, 1)];
        }
    }
    vec![name.to_owned()]
}

fn text_encoder(name: &str) -> String {
    match name {
        "token_embd.weight" => return "model.embed_tokens.weight".into(),
        "output_norm.weight" => return "model.norm.weight".into(),
        _ => {}
    }
    let llama = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    if let Some((layer, rest)) = llama {
        let (part, kind) = rest.rsplit_once('.').unwrap_or((rest, ""));
        let part = match part {
            "attn_q" => "self_attn.q_proj",
            "attn_k" => "self_attn.k_proj",
            "attn_v" => "self_attn.v_proj",
            "attn_output" => "self_attn.o_proj",
            "attn_q_norm" => "self_attn.q_norm",
            "attn_k_norm" => "self_attn.k_norm",
            "attn_norm" => "input_layernorm",
            "ffn_norm" => "post_attention_layernorm",
            "ffn_gate" => "mlp.gate_proj",
            "ffn_up" => "mlp.up_proj",
            "ffn_down" => "mlp.down_proj",
            other => other,
        };
        return format!("model.layers.{layer}.{part}.{kind}");
    }
    let bare = ["embed_tokens.", "layers.", "norm."].iter().any(|start| name.starts_with(start));
    if bare { format!("model.{name}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(component: &'static str, told: &[(&str, &str)]) {
        let dialect = Dialect::new(component, told.iter().map(|(theirs, _)| *theirs));
        for (theirs, ours) in told {
            assert_eq!(dialect.meaning(theirs).join(" "), *ours, "{theirs}");
        }
    }

    #[test]
    fn comfyui_names_are_known() {
        check(
            "transformer",
            &[
                ("model.diffusion_model.x_embedder.weight", "all_x_embedder.2-1.weight"),
                (
                    "final_layer.adaLN_modulation.1.bias",
                    "all_final_layer.2-1.adaLN_modulation.1.bias",
                ),
                ("all_x_embedder.2-1.bias", "all_x_embedder.2-1.bias"),
                (
                    "layers.7.attention.qkv.weight",
                    "layers.7.attention.to_q.weight layers.7.attention.to_k.weight layers.7.attention.to_v.weight",
                ),
                ("layers.0.attention.out.weight", "layers.0.attention.to_out.0.weight"),
                (
                    "noise_refiner.1.attention.q_norm.weight",
                    "noise_refiner.1.attention.norm_q.weight",
                ),
                ("layers.0.attention.to_out.0.weight", "layers.0.attention.to_out.0.weight"),
            ],
        );
    }

    #[test]
    fn original_autoencoder_names_are_known() {
        check(
            "vae",
            &[
                (
                    "encoder.down.0.block.1.norm1.weight",
                    "encoder.down_blocks.0.resnets.1.norm1.weight",
                ),
                (
                    "encoder.down.1.downsample.conv.bias",
                    "encoder.down_blocks.1.downsamplers.0.conv.bias",
                ),
                (
                    "encoder.down.1.block.0.nin_shortcut.bias",
                    "encoder.down_blocks.1.resnets.0.conv_shortcut.bias",
                ),
                ("decoder.up.3.block.0.conv1.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"),
                ("decoder.up.0.block.2.conv1.weight", "decoder.up_blocks.3.resnets.2.conv1.weight"),
                (
                    "decoder.up.3.upsample.conv.weight",
                    "decoder.up_blocks.0.upsamplers.0.conv.weight",
                ),
                ("decoder.mid.block_2.conv1.weight", "decoder.mid_block.resnets.1.conv1.weight"),
                (
                    "decoder.mid.attn_1.proj_out.weight",
                    "decoder.mid_block.attentions.0.to_out.0.weight",
                ),
                ("decoder.mid.attn_1.norm.bias", "decoder.mid_block.attentions.0.group_norm.bias"),
                ("decoder.norm_out.weight", "decoder.conv_norm_out.weight"),
                ("decoder.conv_in.weight", "decoder.conv_in.weight"),
            ],
        );
    }

    #[test]
    fn llama_cpp_names_are_known() {
        check(
            "text_encoder",
            &[
                ("blk.3.attn_output.weight", "model.layers.3.self_attn.o_proj.weight"),
                ("blk.35.ffn_gate.weight", "model.layers.35.mlp.gate_proj.weight"),
                ("token_embd.weight", "model.embed_tokens.weight"),
                ("layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
                ("model.norm.weight", "model.norm.weight"),
                ("lm_head.weight", "lm_head.weight"),
            ],
        );
    }
}
