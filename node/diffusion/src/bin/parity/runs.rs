//! Whole runs.

use std::sync::Arc;

use anyhow::{Context, Result};
use atelier_diffusion::flow_match::Schedule;
use atelier_diffusion::kernels::Kernels;
use atelier_diffusion::lora::Lora;
use atelier_diffusion::pipeline::{Pipeline, Start};
use atelier_diffusion::run::Guidance;
use atelier_diffusion::transformer::RefinedCaption;
use atelier_diffusion::weights::Precision;
use atelier_diffusion::{Image, LoadOptions, Watch};
use serde_json::Value;

use crate::components::{input, output, pass};
use crate::golden::{Array, File, Set};

/// The refined caption of a prompt, tokenised as the reference does.
fn caption<B: Kernels>(pipeline: &Pipeline<B>, prompt: &str) -> Result<Arc<RefinedCaption<B>>> {
    Ok(pipeline.caption(&pipeline.tokenizer.encode_as_reference(prompt))?)
}

/// One prompt or several.
fn prompts(file: &File) -> Result<Vec<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a prompt is no text");
    match file.call("prompts").as_array() {
        Some(several) => several.iter().map(text).collect(),
        None => Ok(vec![text(file.call("prompt"))?]),
    }
}

fn number(file: &File, key: &str) -> Result<f64> {
    file.call(key).as_f64().with_context(|| format!("the call has no {key}"))
}

/// What the run of a file starts from; latents are the golden ones.
fn start<B: Kernels>(pipeline: &Pipeline<B>, file: &File) -> Result<Start<B>> {
    let captions: Result<Vec<_>> = prompts(file)?.iter().map(|p| caption(pipeline, p)).collect();
    let (height, width) = (number(file, "height")? as u32, number(file, "width")? as u32);
    let steps = number(file, "steps")? as usize;
    let multiple = pipeline.config.size_multiple();
    let image_tokens = height as usize / multiple * (width as usize / multiple);
    Ok(Start {
        captions: captions?,
        guidance: None,
        width,
        height,
        latents: file.golden("initial_latents")?.to_f32(),
        schedule: Schedule::new(&pipeline.config.scheduler, steps, image_tokens),
        first_step: 0,
        known: None,
    })
}

/// Runs to the end; names are those of golden files, behind a prefix. Gives the last latents.
fn finish<B: Kernels>(
    pipeline: &Pipeline<B>,
    file: &mut File,
    start: Start<B>,
    prefix: &str,
) -> Result<Array> {
    let shape = file.golden("initial_latents")?.shape.clone();
    let sizes: [usize; 4] = shape[..].try_into().context("latents have another rank")?;
    let first = start.first_step;
    let mut run = pipeline.start(start)?;
    for i in 0.. {
        let velocity = format!("{prefix}velocity.{i}");
        if file.wants(&velocity) {
            let latents = pipeline.tensor(run.latents(), sizes);
            file.put(&velocity, output(run.velocity(&latents)));
        }
        if run.step()?.is_none() {
            break;
        }
        let last = run.steps_done() == run.steps();
        let name = if last { "final_latents".into() } else { format!("latents.{i}") };
        file.put(&format!("{prefix}{name}"), Array::f32(&shape, &run.latents()));
        debug_assert_eq!(run.steps_done(), first + i + 1);
    }
    Ok(Array::f32(&shape, &run.latents()))
}

/// Decodes latents to the golden names `image` and `image_u8`.
fn decode<B: Kernels>(pipeline: &Pipeline<B>, file: &mut File, latents: &Array) -> Result<()> {
    let sizes: [usize; 4] = latents.shape[..].try_into().context("latents have another rank")?;
    let planes = pipeline.decode(latents.to_f32(), sizes)?;
    let scale = pipeline.config.autoencoder.scale();
    let (height, width) = (sizes[2] * scale, sizes[3] * scale);
    file.put("image", Array::f32(&[sizes[0], 3, height, width], &planes));
    if file.wants("image_u8") {
        let first = &planes[..3 * height * width];
        file.put_image(Image::from_planes(first, width as u32, height as u32));
    }
    Ok(())
}

pub(crate) fn txt2img<B: Kernels>(pipeline: &Pipeline<B>, file: &mut File) -> Result<()> {
    let start = start(pipeline, file)?;
    let latents = finish(pipeline, file, start, "")?;
    decode(pipeline, file, &latents)
}

pub(crate) fn cfg<B: Kernels>(pipeline: &Pipeline<B>, file: &mut File) -> Result<()> {
    let scale = number(file, "guidance_scale")? as f32;
    let truncation = number(file, "cfg_truncation")? as f32;
    let negative = file.call("negative_prompt").as_str().unwrap_or_default().to_owned();
    let plain = Guidance { scale, truncation: 1.0, normalization: 0.0 };
    let runs = [
        ("", plain, negative.as_str()),
        ("normalized.", Guidance { normalization: 1.0, ..plain }, &negative),
        ("truncated.", Guidance { truncation, ..plain }, &negative),
        ("default_negative.", plain, ""),
    ];
    for (prefix, guidance, negative) in runs {
        let mut start = start(pipeline, file)?;
        start.guidance = Some((guidance, vec![caption(pipeline, negative)?]));
        let latents = finish(pipeline, file, start, prefix)?;
        if prefix.is_empty() {
            decode(pipeline, file, &latents)?;
        }
    }
    Ok(())
}

pub(crate) fn img2img<B: Kernels>(
    pipeline: &Pipeline<B>,
    set: &Set,
    file: &mut File,
) -> Result<()> {
    let mut start = start(pipeline, file)?;
    let png = std::fs::read(set.directory.join("images/img2img_input.png"))?;
    let picture = Image::from_png(&png)?;
    anyhow::ensure!(
        picture.rgb == file.golden("input_image_u8")?.to_u8(),
        "the PNG is read otherwise than the reference reads it"
    );
    let shape = file.golden("noise")?.shape.clone();
    let encoded = pipeline.encode(&picture, &file.golden("posterior_noise")?.to_f32())?;
    file.put("image_latents", Array::f32(&shape, &encoded));
    let first = start.schedule.first_step(number(file, "strength")?);
    let run_steps = start.schedule.timesteps()[first..].to_vec();
    file.put("timesteps", Array::f32(&[run_steps.len()], &run_steps));
    start.latents = start.schedule.noised(first, &encoded, &file.golden("noise")?.to_f32());
    file.put("initial_latents", Array::f32(&shape, &start.latents));
    start.first_step = first;
    let latents = finish(pipeline, file, start, "")?;
    decode(pipeline, file, &latents)
}

/// Outputs are called `{style}.output` and `{style}_scaled.output`.
pub(crate) fn lora<B: Kernels>(set: &Set, device: &B::Device, file: &mut File) -> Result<()> {
    let inputs = set.file("transformer.safetensors")?;
    let case = file.entry["case"].as_str().context("lora names no case")?.to_owned();
    for name in file.stems_of(".output") {
        let (style, strength) = match name.strip_suffix("_scaled") {
            Some(style) => (style, set.config()["lora"]["scale"].as_f64().unwrap_or(1.0)),
            None => (name.as_str(), 1.0),
        };
        let path = set.directory.join(format!("lora/{style}.safetensors"));
        let mut lora = Lora::read(&path, strength as f32)?;
        let options = LoadOptions { lora: Some(&mut lora), ..LoadOptions::new(Precision::F32) };
        let directory = set.directory.join("pipeline");
        let mut watch = Watch { progress: &mut |_| {}, bytes: None };
        let pipeline = Pipeline::<B>::load_with(&directory, device, options, &mut watch)?;
        anyhow::ensure!(lora.unused().is_empty(), "unused LoRA paths: {:?}", lora.unused());
        let (out, _) = pass(&pipeline, &inputs, &case)?;
        file.put(&format!("{name}.output"), out);
    }
    Ok(())
}

/// Single passes and one run with weights and activations in bfloat16.
pub(crate) fn bf16<B: Kernels>(pipeline: &Pipeline<B>, set: &Set, file: &mut File) -> Result<()> {
    let inputs = set.file("transformer.safetensors")?;
    for case in file.stems_of(".output") {
        let (out, _) = pass(pipeline, &inputs, &case)?;
        file.put(&format!("{case}.output"), out);
    }
    let mut inputs = set.file("txt2img.safetensors")?;
    let prompt = prompts(&inputs)?.remove(0);
    let ids = pipeline.tokenizer.encode_as_reference(&prompt).ids;
    let mut closed = atelier_diffusion::tap::Tap::closed();
    file.put("txt2img.embeds", output(pipeline.text_encoder.forward(&ids, &mut closed)));
    let start = start(pipeline, &inputs)?;
    let latents = finish(pipeline, &mut inputs, start, "")?;
    file.put("txt2img.final_latents", latents);
    // The set has no picture of this run; that it decodes at all is worth a look.
    let x = input::<B, 4>(pipeline, &inputs, "initial_latents")?;
    let sizes = x.dims();
    pipeline.decode(file_values(&x), sizes)?;
    Ok(())
}

fn file_values<B: Kernels>(x: &burn::tensor::Tensor<B, 4>) -> Vec<f32> {
    atelier_diffusion::tap::values(x.clone())
}
