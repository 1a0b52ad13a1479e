//! Each component on its own.

use anyhow::{Context, Result};
use atelier_diffusion::flow_match::Schedule;
use atelier_diffusion::kernels::Kernels;
use atelier_diffusion::pipeline::Pipeline;
use atelier_diffusion::tap::{Tap, values};
use atelier_diffusion::tokenizer::PROMPT_TOKENS_MAX;
use atelier_diffusion::transformer::{RefinedCaption, caption_positions, image_positions};
use burn::tensor::Tensor;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::golden::{Array, File, Report, Set};

/// A golden tensor on the device.
pub(crate) fn input<B: Kernels, const D: usize>(
    pipeline: &Pipeline<B>,
    file: &File,
    name: &str,
) -> Result<Tensor<B, D>> {
    let array = file.golden(name)?;
    let shape: [usize; D] =
        array.shape[..].try_into().with_context(|| format!("{name} has another rank"))?;
    Ok(pipeline.tensor(array.to_f32(), shape))
}

/// A computed tensor, as it is written.
pub(crate) fn output<B: Kernels, const D: usize>(tensor: Tensor<B, D>) -> Array {
    Array::f32(&tensor.dims(), &values(tensor))
}

pub(crate) fn text<B: Kernels>(pipeline: &Pipeline<B>, file: &mut File) -> Result<()> {
    let prompts = file.entry["prompts"].as_object().cloned().unwrap_or_default();
    for (name, prompt) in prompts {
        let prompt = prompt.as_str().context("a prompt is no text")?;
        let ids = pipeline.tokenizer.encode_as_reference(prompt).ids;
        let row = [PROMPT_TOKENS_MAX];
        let padded =
            (0..row[0]).map(|i| ids.get(i).copied().unwrap_or(pipeline.tokenizer.pad_id()));
        file.put(&format!("{name}.input_ids"), Array::integers(&row, Dtype::I64, padded));
        let mask = (0..row[0]).map(|i| u32::from(i < ids.len()));
        file.put(&format!("{name}.attention_mask"), Array::integers(&row, Dtype::I64, mask));
        let mut seen = Vec::new();
        let mut look = |stage: &str, shape: Vec<usize>, v: Vec<f32>| {
            seen.push((format!("{name}.{stage}"), Array::f32(&shape, &v)));
        };
        let embeds = pipeline.text_encoder.forward(&ids, &mut Tap::open(&mut look));
        file.put(&format!("{name}.embeds"), output(embeds));
        for (name, array) in seen {
            file.put(&name, array);
        }
    }
    Ok(())
}

pub(crate) fn tokenizer_cases<B: Kernels>(
    pipeline: &Pipeline<B>,
    set: &Set,
    report: &mut Report,
) -> Result<()> {
    let name = "tokenizer_cases.json";
    let golden = set.json(name)?;
    let tokenizer = &pipeline.tokenizer;
    let mut cases = Vec::new();
    for case in golden["cases"].as_array().context("there are no cases")? {
        let text = case["text"].as_str().context("a case has no text")?;
        let ids = tokenizer.encode_text(text);
        let chat_ids = tokenizer.encode_as_reference(text).ids;
        let decoded = tokenizer.decode(&ids);
        let got = json!({"text": text, "ids": ids, "chat_ids": chat_ids, "decoded": decoded});
        for key in ["ids", "chat_ids", "decoded"] {
            let holds = got[key] == case[key];
            report.line(
                holds,
                format!("tokenizer_cases/{key} {text:?}"),
                &note(&got[key], &case[key]),
            );
        }
        cases.push(got);
    }
    let long = &golden["truncation"];
    let word = long["text"].as_str().context("the truncation has no text")?;
    let repeats = long["repeat"].as_u64().context("the truncation has no repeat")?;
    let joined = vec![word; repeats as usize].join(long["joined_by"].as_str().unwrap_or(" "));
    let tokens = tokenizer.encode_as_reference(&joined);
    let holds = json!(tokens.ids) == long["chat_ids"]
        && json!(tokens.ids.len() + tokens.cut) == long["full_length"];
    report.line(holds, "tokenizer_cases/truncation".into(), "");
    let truncation = json!({"chat_ids": tokens.ids});
    report.write_json(name, &json!({"cases": cases, "truncation": truncation}))
}

fn note(got: &Value, expected: &Value) -> String {
    if got == expected { "exact".into() } else { format!("{got}, expected {expected}") }
}

/// Tensors `N.sigmas`, `endpoint.N.sigmas`, `shift6.N.sigmas` and their kin, and two steps.
pub(crate) fn scheduler<B: Kernels>(pipeline: &Pipeline<B>, file: &mut File) -> Result<()> {
    let config = &pipeline.config.scheduler;
    for stem in file.stems_of(".sigmas") {
        let (kind, steps) = stem.rsplit_once('.').unwrap_or(("", &stem));
        let steps: usize = steps.parse().with_context(|| format!("{stem} names no step count"))?;
        let mut config = config.clone();
        let schedule = match (kind, kind.strip_prefix("shift")) {
            ("endpoint", _) => Schedule::endpoint(&config, steps),
            (_, Some(shift)) => {
                config.shift = shift.parse().with_context(|| format!("{stem} names no shift"))?;
                Schedule::new(&config, steps, 0)
            }
            _ => Schedule::new(&config, steps, 0),
        };
        let t_model: Vec<f32> = (0..steps).map(|i| schedule.t_model(i)).collect();
        file.put(&format!("{stem}.sigmas"), Array::f32(&[steps + 1], schedule.sigmas()));
        file.put(&format!("{stem}.timesteps"), Array::f32(&[steps], &schedule.timesteps()));
        file.put(&format!("{stem}.t_model"), Array::f32(&[steps], &t_model));
    }
    let schedule = Schedule::new(config, 8, 0);
    let mut sample = input::<B, 4>(pipeline, file, "step.sample")?;
    for i in 0.. {
        let Ok(velocity) = input::<B, 4>(pipeline, file, &format!("step.{i}.model_output")) else {
            break;
        };
        sample = schedule.step(i, sample, velocity);
        file.put(&format!("step.{i}.prev_sample"), output(sample.clone()));
    }
    Ok(())
}

/// One pass through the transformer with the inputs of a case; the output and what the tap showed.
pub(crate) fn pass<B: Kernels>(
    pipeline: &Pipeline<B>,
    file: &File,
    case: &str,
) -> Result<(Array, Vec<(String, Array)>)> {
    let array = file.golden(&format!("{case}.latents"))?;
    let [batch, channels, frames, height, width] = array.shape[..] else {
        anyhow::bail!("{case}.latents has rank {}, expected 5", array.shape.len());
    };
    let latents = pipeline.tensor(array.to_f32(), [batch, channels * frames, height, width]);
    let t = file.golden(&format!("{case}.t"))?.to_f32();
    let mut seen = Vec::new();
    let mut look = |stage: &str, shape: Vec<usize>, v: Vec<f32>| {
        seen.push((format!("{case}.{stage}"), Array::f32(&shape, &v)));
    };
    let mut tap = Tap::open(&mut look);
    let model = &pipeline.transformer;
    let captions = (0..batch)
        .map(|i| {
            Ok(model
                .embed_caption(input(pipeline, file, &format!("{case}.caption.{i}"))?, &mut tap))
        })
        .collect::<Result<Vec<RefinedCaption<B>>>>()?;
    let captions: Vec<_> = captions.iter().collect();
    let sequence = model.sequence([height, width], &captions, &latents.device());
    let out = model.forward(latents, &t, &captions, &sequence, &mut tap);
    let lengths: Vec<usize> =
        captions.iter().map(|c| sequence.image_tokens_padded() + c.tokens_padded()).collect();
    Ok((Array::f32(&array.shape, &values(out)), as_recorded(seen, &lengths)))
}

/// Gives what a tap showed the form that golden files have for batches.
///
/// What was shown item by item stands in one tensor: rows one behind the other, sequences stacked
/// and filled up with zeros. In a sequence of the whole batch, rows past an item's own length are
/// zero.
fn as_recorded(seen: Vec<(String, Array)>, lengths: &[usize]) -> Vec<(String, Array)> {
    let mut recorded: Vec<(String, Vec<Array>)> = Vec::new();
    for (name, array) in seen {
        match recorded.iter_mut().find(|(known, _)| *known == name) {
            Some((_, parts)) => parts.push(array),
            None => recorded.push((name, vec![array])),
        }
    }
    let longest = lengths.iter().max().copied().unwrap_or(0);
    let whole = |parts: Vec<Array>| {
        let whole =
            if parts[0].shape.len() == 2 { Array::rows(&parts) } else { Array::stack(&parts) };
        let unified = whole.shape.get(1) == Some(&longest) && whole.shape[0] == lengths.len();
        if unified { whole.cut(lengths) } else { whole }
    };
    recorded.into_iter().map(|(name, parts)| (name, whole(parts))).collect()
}

pub(crate) fn transformer<B: Kernels>(pipeline: &Pipeline<B>, file: &mut File) -> Result<()> {
    for case in file.stems_of(".latents") {
        let (out, seen) = pass(pipeline, file, &case)?;
        file.put(&format!("{case}.output"), out);
        for (name, array) in seen {
            file.put(&name, array);
        }
        positions(pipeline, file, &case)?;
    }
    Ok(())
}

/// Positions and rotary factors, which golden files have for the cases that are told in detail.
fn positions<B: Kernels>(pipeline: &Pipeline<B>, file: &mut File, case: &str) -> Result<()> {
    let latents = file.golden(&format!("{case}.latents"))?.shape.clone();
    let patch = pipeline.config.transformer.patch_size();
    let patches = [latents[3] / patch, latents[4] / patch];
    for i in 0..latents[0] {
        let tokens = file.golden(&format!("{case}.caption.{i}"))?.shape[0];
        let padded = tokens.next_multiple_of(32);
        let image = image_positions(patches, padded);
        let mut caption = caption_positions(padded);
        // The reference appends rows that it never uses.
        caption.resize(2 * padded - tokens, [0; 3]);
        let all: Vec<_> = image.iter().chain(&caption).copied().collect();
        let flat = |rows: &[[usize; 3]]| {
            let values = rows.iter().flatten().map(|&v| v as u32);
            Array::integers(&[rows.len(), 3], Dtype::I32, values.collect::<Vec<_>>())
        };
        file.put(&format!("{case}.image_pos.{i}"), flat(&image));
        file.put(&format!("{case}.caption_pos.{i}"), flat(&caption));
        let angles = pipeline.transformer.rotary(&all);
        let pairs: Vec<f32> = angles.iter().flat_map(|&(cos, sin)| [cos, sin]).collect();
        let shape = [all.len(), angles.len() / all.len(), 2];
        file.put(&format!("{case}.rope.{i}"), Array::f32(&shape, &pairs));
    }
    Ok(())
}

pub(crate) fn vae<B: Kernels>(pipeline: &Pipeline<B>, file: &mut File) -> Result<()> {
    let latents = input::<B, 4>(pipeline, file, "decode.latents")?;
    let picture = input::<B, 4>(pipeline, file, "encode.image")?;
    let mut seen = Vec::new();
    let mut look = |stage: &str, shape: Vec<usize>, v: Vec<f32>| {
        seen.push((format!("decode.{stage}"), Array::f32(&shape, &v)));
    };
    let image = pipeline.autoencoder.decode(latents, &mut Tap::open(&mut look));
    let mut look = |stage: &str, shape: Vec<usize>, v: Vec<f32>| {
        seen.push((format!("encode.{stage}"), Array::f32(&shape, &v)));
    };
    let posterior = pipeline.autoencoder.encode(picture, &mut Tap::open(&mut look));
    for (name, array) in seen {
        file.put(&name, array);
    }
    file.put("decode.image", output(image));
    file.put("encode.std", output(posterior.std()));
    file.put("encode.mean", output(posterior.mean));
    file.put("encode.logvar", output(posterior.logvar));
    Ok(())
}

pub(crate) fn norms<B: Kernels>(pipeline: &Pipeline<B>, file: &mut File) -> Result<()> {
    let model = &pipeline.transformer;
    let x = input::<B, 3>(pipeline, file, "final_layer.input")?;
    let c = input::<B, 2>(pipeline, file, "final_layer.c")?;
    file.put("final_layer.output", output(model.final_layer(x, c)));
    let x = input::<B, 3>(pipeline, file, "block_norm.input")?;
    file.put("block_norm.output", output(model.block_norm(x)));
    let x = input::<B, 4>(pipeline, file, "qk_norm.input")?;
    file.put("qk_norm.output", output(model.qk_norm(x)));
    let x = input::<B, 2>(pipeline, file, "caption_norm.input")?;
    file.put("caption_norm.output", output(model.caption_norm(x)));
    let x = input::<B, 3>(pipeline, file, "text_norm.input")?;
    file.put("text_norm.output", output(pipeline.text_encoder.text_norm(x)));
    let x = input::<B, 4>(pipeline, file, "group_norm.input")?;
    file.put("group_norm.output", output(pipeline.autoencoder.group_norm(x)));
    Ok(())
}
