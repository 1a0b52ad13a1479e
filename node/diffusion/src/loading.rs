//! From a model directory to a pipeline.
//!
//! Owns the order: everything that is cheap to judge is judged first — configurations, tokenizer,
//! the headers of all files, the memory plan — and then each file of weights is read once.

use std::path::Path;
use std::sync::Mutex;

use burn_flex::{Flex, FlexDevice};

use crate::autoencoder::AutoencoderKL;
use crate::config::{ConfigError, PipelineConfig};
use crate::kernels::Kernels;
use crate::layout::Layout;
use crate::lora::{Lora, LoraError};
use crate::pipeline::Pipeline;
use crate::plan::{MemoryPlan, Placement, PlanError};
use crate::preview::Projection;
use crate::text_encoder::{PlacedTextEncoder, Qwen3Model};
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::transformer::ZImageTransformer2DModel;
use crate::weights::{LoadProgress, Precision, Wanted, Watch, Weights, WeightsError};

/// Why a model directory could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A configuration file is missing, broken or unsupported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Weights are missing, damaged or do not fit the configuration.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The tokenizer is missing or broken.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The LoRA is missing or broken.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// No weight of the model is named in the LoRA.
    #[error(
        "the LoRA changes none of the model's weights, its first path is {0}; it was made for another model"
    )]
    LoraUnused(String),
    /// The model does not fit into the device's memory; nothing has been read.
    #[error(transparent)]
    Memory(#[from] PlanError),
    /// The device that was asked for cannot be used.
    #[error("cannot use the device: {0}; use the backend cpu, or auto")]
    Device(String),
}

/// How a model is loaded.
pub struct LoadOptions<'a> {
    /// In what the components compute.
    pub precision: Precision,
    /// Where the text encoder lives; `None` is on the device if the memory is known and it fits
    /// there, or if the memory is not known.
    pub text_encoder: Option<Placement>,
    /// A change to the transformer.
    pub lora: Option<&'a mut Lora>,
    /// The device's memory in bytes; `None` judges nothing and decodes at once.
    pub memory_bytes: Option<u64>,
}

impl LoadOptions<'_> {
    /// Everything on the device, whatever its memory.
    #[must_use]
    pub fn new(precision: Precision) -> Self {
        Self { precision, text_encoder: None, lora: None, memory_bytes: None }
    }
}

/// What diffusers calls the weights of its components.
const DIFFUSERS_STEM: &str = "diffusion_pytorch_model";

impl<B: Kernels> Pipeline<B> {
    /// Loads a model directory in the diffusers layout, in f32.
    ///
    /// # Errors
    /// Whatever is wrong with the directory, by the name of the file or tensor.
    pub fn load(
        directory: &Path,
        device: &B::Device,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, LoadError> {
        let options = LoadOptions::new(Precision::F32);
        Self::load_with(directory, device, options, &mut Watch { progress, bytes: None })
    }

    /// Loads a model directory with everything that can be chosen.
    ///
    /// # Errors
    /// As [`Self::load`]; a LoRA of which no key fits; a plan that the device has no memory for.
    pub fn load_with(
        directory: &Path,
        device: &B::Device,
        options: LoadOptions,
        watch: &mut Watch,
    ) -> Result<Self, LoadError> {
        let config = PipelineConfig::read(directory)?;
        let tokenizer = Tokenizer::load(directory)?;
        tokenizer.check_rows(directory, config.text_encoder.vocab_size)?;
        let LoadOptions { precision, text_encoder: placement, mut lora, memory_bytes } = options;
        let layout = Layout::of(&config);
        let plan = plan(&config, &layout, precision, placement, memory_bytes)?;
        announce(&plan, memory_bytes);

        // All headers are judged before the first tensor: what is missing shows at once.
        let host = plan.placement == Placement::Host;
        let text = &layout.text_encoder;
        let mut at_device = (!host)
            .then(|| open_text_encoder::<B>(directory, device, precision, text))
            .transpose()?;
        let mut at_host = host
            .then(|| open_text_encoder::<Flex>(directory, &FlexDevice, precision, text))
            .transpose()?;
        let diffusers = |component: &'static str, wanted: &[Wanted]| {
            let folder = directory.join(component);
            open::<B>(&folder, component, DIFFUSERS_STEM, device, precision, wanted)
        };
        let mut transformer_weights = diffusers("transformer", &layout.transformer)?;
        let mut vae_weights = diffusers("vae", &layout.vae)?;

        let mut files = Vec::new();
        let text_encoder = match (&mut at_device, &mut at_host) {
            (Some(weights), _) => {
                files.extend(weights.stream(watch, None)?);
                PlacedTextEncoder::Device(Qwen3Model::load(weights, &config.text_encoder)?)
            }
            (None, Some(weights)) => {
                files.extend(weights.stream(watch, None)?);
                let model = Qwen3Model::load(weights, &config.text_encoder)?;
                PlacedTextEncoder::Host(model, device.clone())
            }
            (None, None) => unreachable!("the text encoder is at one of two places"),
        };
        files.extend(transformer_weights.stream(watch, lora.as_deref_mut())?);
        let transformer =
            ZImageTransformer2DModel::load(&mut transformer_weights, &config.transformer)?;
        check_lora(lora.as_deref())?;
        files.extend(vae_weights.stream(watch, None)?);
        let autoencoder = AutoencoderKL::load(&mut vae_weights, &config.autoencoder)?;

        let preview = Mutex::new(Projection::new(config.autoencoder.latent_channels));
        let work_bytes_max = memory_bytes.map(|available| plan.left_for_work(available));
        let pipeline = Self {
            config,
            tokenizer,
            text_encoder,
            transformer,
            autoencoder,
            plan,
            files,
            precision,
            work_bytes_max,
            device: device.clone(),
            captions: Mutex::default(),
            preview,
        };
        pipeline.show_test_card();
        Ok(pipeline)
    }
}

fn plan(
    config: &PipelineConfig,
    layout: &Layout,
    precision: Precision,
    placement: Option<Placement>,
    memory_bytes: Option<u64>,
) -> Result<MemoryPlan, PlanError> {
    match memory_bytes {
        Some(available) => MemoryPlan::fit(config, layout, precision, placement, available),
        None => {
            let size = [config.autoencoder.sample_size; 2];
            Ok(MemoryPlan::new(config, layout, precision, placement.unwrap_or_default(), size))
        }
    }
}

/// Opens the files of a component and judges them; warns of tensors that nobody asks for.
fn announce(plan: &MemoryPlan, memory_bytes: Option<u64>) {
    tracing::info!(
        device_bytes = plan.device_bytes(),
        host_bytes = plan.host_bytes(),
        memory_bytes,
        text_encoder = ?plan.placement,
        tiled = plan.is_tiled,
        "memory plan"
    );
}

fn open_text_encoder<B: Kernels>(
    directory: &Path,
    device: &B::Device,
    precision: Precision,
    wanted: &[Wanted],
) -> Result<Weights<B>, WeightsError> {
    let folder = directory.join("text_encoder");
    open::<B>(&folder, "text_encoder", "model", device, precision, wanted)
}

fn open<B: Kernels>(
    folder: &Path,
    component: &'static str,
    stem: &str,
    device: &B::Device,
    precision: Precision,
    wanted: &[Wanted],
) -> Result<Weights<B>, WeightsError> {
    let mut weights = Weights::<B>::open(folder, component, stem, device, precision)?;
    weights.expect(wanted)?;
    let unknown = weights.unknown();
    if let Some(first) = unknown.first() {
        tracing::warn!(component, count = unknown.len(), first, "unknown tensors are left out");
    }
    Ok(weights)
}

fn check_lora(lora: Option<&Lora>) -> Result<(), LoadError> {
    let Some(lora) = lora else { return Ok(()) };
    let unused = lora.unused();
    if lora.applied() == 0 {
        let first = unused.first().copied().unwrap_or("none");
        return Err(LoadError::LoraUnused(first.to_owned()));
    }
    if let Some(first) = unused.first() {
        tracing::warn!(unused = unused.len(), first, "parts of the LoRA fit no weight");
    }
    tracing::info!(applied = lora.applied(), "LoRA added");
    Ok(())
}
