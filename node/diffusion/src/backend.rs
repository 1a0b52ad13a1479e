//! Which device draws, chosen when the program runs.
//!
//! Owns the only place that names concrete burn backends, and the *determinism class*: inside one
//! class the same request gives the same bytes. It must not know how anything is computed.
//!
//! Nothing here panics where there is no CUDA driver: its presence is looked up in `/proc` before
//! the first CUDA call, and that call is made inside `catch_unwind`, since cudarc panics when it
//! cannot load a library.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};

use crate::config::PipelineConfig;
use crate::image::Image;
use crate::kernels::{Kernels, Mask, Then};
use crate::layout::Layout;
use crate::loading::{LoadError, LoadOptions};
use crate::lora::Lora;
use crate::noise::{Purpose, normal};
use crate::pipeline::Pipeline;
use crate::plan::{MemoryPlan, Placement};
use crate::request::{Request, RequestError};
use crate::run::{Run, StageTimes, StepError, StepReport};
use crate::tap::values;
use crate::weights::{LoadProgress, LoadedFile, Precision, Watch};

/// Which device to draw on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// CUDA where this build has it and a driver is there, else the CPU.
    #[default]
    Auto,
    /// The CPU, in F32.
    Cpu,
    /// An NVIDIA card, in BF16; an error where there is none.
    Cuda,
}

impl FromStr for BackendChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            other => Err(format!("backend is {other}, expected auto, cpu or cuda")),
        }
    }
}

/// A run of whichever backend.
pub trait AnyRun: Send {
    /// As [`Run::step`].
    ///
    /// # Errors
    /// As [`Run::step`].
    fn step(&mut self) -> Result<Option<StepReport>, StepError>;
    /// As [`Run::latents`].
    fn latents(&self) -> Vec<f32>;
    /// As [`Run::steps_done`].
    fn steps_done(&self) -> usize;
    /// As [`Run::resume_from`].
    ///
    /// # Errors
    /// As [`Run::resume_from`].
    fn resume_from(&mut self, latents: Vec<f32>, step: usize) -> Result<(), StepError>;
    /// As [`Run::preview`].
    fn preview(&self) -> Option<Image>;
    /// As [`Run::decode`].
    ///
    /// # Errors
    /// As [`Run::decode`].
    fn decode(&mut self) -> Result<Image, StepError>;
    /// As [`Run::times`].
    fn times(&self) -> StageTimes;
}

impl<B: Kernels> AnyRun for Run<'_, B> {
    fn step(&mut self) -> Result<Option<StepReport>, StepError> {
        Run::step(self)
    }

    fn latents(&self) -> Vec<f32> {
        Run::latents(self)
    }

    fn steps_done(&self) -> usize {
        Run::steps_done(self)
    }

    fn resume_from(&mut self, latents: Vec<f32>, step: usize) -> Result<(), StepError> {
        Run::resume_from(self, latents, step)
    }

    fn preview(&self) -> Option<Image> {
        Run::preview(self)
    }

    fn decode(&mut self) -> Result<Image, StepError> {
        Run::decode(self)
    }

    fn times(&self) -> StageTimes {
        Run::times(self)
    }
}

/// What a loaded model does, on whichever backend.
trait AnyModel: Send + Sync {
    fn config(&self) -> &PipelineConfig;
    fn plan(&self) -> &MemoryPlan;
    fn files(&self) -> &[LoadedFile];
    fn validate(&self, request: &Request) -> Result<(), RequestError>;
    fn begin<'a>(&'a self, request: &Request) -> Result<Box<dyn AnyRun + 'a>, RequestError>;
}

impl<B: Kernels> AnyModel for Pipeline<B> {
    fn config(&self) -> &PipelineConfig {
        &self.config
    }

    fn plan(&self) -> &MemoryPlan {
        &self.plan
    }

    fn files(&self) -> &[LoadedFile] {
        &self.files
    }

    fn validate(&self, request: &Request) -> Result<(), RequestError> {
        Pipeline::validate(self, request)
    }

    fn begin<'a>(&'a self, request: &Request) -> Result<Box<dyn AnyRun + 'a>, RequestError> {
        Ok(Box::new(Pipeline::begin(self, request)?))
    }
}

/// A model on the device that was chosen.
pub struct AnyPipeline {
    model: Box<dyn AnyModel>,
    device_name: String,
    class: String,
}

/// What is chosen when a model is loaded onto whichever device.
#[derive(Debug, Clone, Default)]
pub struct LoadSettings {
    /// Which device.
    pub backend: BackendChoice,
    /// Where the text encoder lives; `None` is on the device where it fits, else on the host. On
    /// the CPU both places are one.
    pub text_encoder: Option<Placement>,
    /// A LoRA file and its strength.
    pub lora: Option<(PathBuf, f32)>,
    /// The device's memory in bytes, where it shall not be looked up.
    pub memory_bytes: Option<u64>,
}

impl AnyPipeline {
    /// Loads a model directory onto the chosen device.
    ///
    /// # Errors
    /// As [`Pipeline::load`]; and [`LoadError::Device`] where CUDA was asked for and cannot be
    /// used.
    pub fn load(
        choice: BackendChoice,
        directory: &Path,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, LoadError> {
        let settings = LoadSettings { backend: choice, ..LoadSettings::default() };
        Self::load_with(&settings, directory, &mut Watch { progress, bytes: None })
    }

    /// Loads a model directory with everything that can be chosen.
    ///
    /// # Errors
    /// As [`Pipeline::load_with`]; and [`LoadError::Device`] where CUDA was asked for and cannot be
    /// used.
    pub fn load_with(
        settings: &LoadSettings,
        directory: &Path,
        watch: &mut Watch,
    ) -> Result<Self, LoadError> {
        match settings.backend {
            BackendChoice::Cpu => Self::load_cpu(settings, directory, watch),
            BackendChoice::Cuda => cuda::load(settings, directory, watch),
            BackendChoice::Auto => match cuda::probe() {
                Ok(()) => cuda::load(settings, directory, watch),
                Err(reason) => {
                    tracing::debug!(reason, "drawing on the cpu");
                    Self::load_cpu(settings, directory, watch)
                }
            },
        }
    }

    fn load_cpu(
        settings: &LoadSettings,
        directory: &Path,
        watch: &mut Watch,
    ) -> Result<Self, LoadError> {
        let device_name = cpu_name();
        let kind = format!("{}-{}", std::env::consts::ARCH, cpu_level());
        // What is free now says nothing of later: pictures are judged only by a memory that was named.
        if settings.memory_bytes.is_none() {
            check_host_memory(directory)?;
        }
        Self::load_on::<Flex>(
            settings,
            directory,
            &FlexDevice,
            Precision::F32,
            ["flex-f32", &kind, &device_name],
            settings.memory_bytes,
            watch,
        )
    }

    fn load_on<B: Kernels>(
        settings: &LoadSettings,
        directory: &Path,
        device: &B::Device,
        precision: Precision,
        [backend, kind, device_name]: [&str; 3],
        memory_bytes: Option<u64>,
        watch: &mut Watch,
    ) -> Result<Self, LoadError> {
        let mut lora = match &settings.lora {
            Some((path, strength)) => Some(Lora::read(path, *strength)?),
            None => None,
        };
        let options = LoadOptions {
            precision,
            text_encoder: settings.text_encoder,
            lora: lora.as_mut(),
            memory_bytes,
        };
        let model = Pipeline::<B>::load_with(directory, device, options, watch)?;
        let build = concat!(env!("CARGO_PKG_VERSION"), "+burn-0.21.0+kernels-2");
        let probe = fingerprint::<B>(device, precision.dtype());
        // Pictures decoded in tiles, and captions computed elsewhere, have other bytes.
        let mut backend = backend.to_owned();
        if model.plan.is_tiled {
            backend.push_str("-tiled");
        }
        if model.plan.placement == Placement::Host && precision != Precision::F32 {
            backend.push_str("-text-on-host");
        }
        Ok(Self {
            model: Box::new(model),
            device_name: device_name.to_owned(),
            class: format!("{build}/{backend}/{kind}/{probe}"),
        })
    }

    /// As [`Pipeline::validate`].
    ///
    /// # Errors
    /// As [`Pipeline::validate`].
    pub fn validate(&self, request: &Request) -> Result<(), RequestError> {
        self.model.validate(request)
    }

    /// As [`Pipeline::begin`].
    ///
    /// # Errors
    /// As [`Pipeline::begin`].
    pub fn begin<'a>(&'a self, request: &Request) -> Result<Box<dyn AnyRun + 'a>, RequestError> {
        self.model.begin(request)
    }

    /// What the model's files say.
    #[must_use]
    pub fn config(&self) -> &PipelineConfig {
        self.model.config()
    }

    /// What lies where, in bytes.
    #[must_use]
    pub fn plan(&self) -> &MemoryPlan {
        self.model.plan()
    }

    /// The files of weights that were read, with their digests.
    #[must_use]
    pub fn files(&self) -> &[LoadedFile] {
        self.model.files()
    }

    /// The device, in words.
    #[must_use]
    pub fn device_name(&self) -> &str {
        &self.device_name
    }

    /// The determinism class: `build/backend/device kind/fingerprint`.
    ///
    /// Two engines of one class give the same bytes for the same request. The fingerprint is taken
    /// from what the device computes, since its name is not enough: the CPU's matrix product splits
    /// its sums by the sizes of the caches, and exponentials come from the system's library.
    #[must_use]
    pub fn class(&self) -> &str {
        &self.class
    }
}

/// A digest of the bits that a backend gives for a fixed little computation of every kind we use.
fn fingerprint<B: Kernels>(device: &B::Device, dtype: DType) -> String {
    let tensor = |seed: u64, shape: [usize; 2]| {
        let drawn = normal(seed, 0, Purpose::Latents, shape[0] * shape[1]);
        let data = TensorData::new(drawn, shape);
        Tensor::<B, 2>::from_data(data, (device, DType::F32)).cast(dtype)
    };
    // The inner width is larger than any block that a matrix product splits its sums into.
    let product = tensor(1, [48, 5000]).matmul(tensor(2, [5000, 96]));
    let x = product.clone().mul_scalar(0.01).reshape([1, 48, 3, 32]);
    let attended = B::attend(x.clone(), x.clone(), x.clone(), &Mask::None);
    let pixels = x.reshape([1, 32, 12, 12]);
    let weight = tensor(3, [16, 288]).reshape([16, 32, 3, 3]);
    let convolved = conv2d(pixels, weight, None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1));
    let ones = Tensor::<B, 1>::ones([16], (device, dtype));
    let normal = B::group_norm(convolved, [ones.clone(), ones], 4, 1e-6, Then::Silu);
    let gated = B::swiglu(attended.clone(), attended.tanh());
    let mut digest = blake3::Hasher::new();
    for part in [values(product), values(normal), values(gated)] {
        for value in part {
            digest.update(&value.to_bits().to_le_bytes());
        }
    }
    digest.finalize().to_hex()[..12].to_owned()
}

/// Refuses a model that this machine has no memory for, before the system ends the process for it.
fn check_host_memory(directory: &Path) -> Result<(), LoadError> {
    let Some(available) = host_memory() else { return Ok(()) };
    let config = PipelineConfig::read(directory)?;
    let layout = Layout::of(&config);
    MemoryPlan::fit(&config, &layout, Precision::F32, Some(Placement::Device), available)?;
    Ok(())
}

/// Bytes that the system could give to this process.
fn host_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The CPU's name, as the system tells it.
fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split(':').nth(1)).map_or("CPU", str::trim);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name}, {threads} threads")
}

/// The level of vector instructions that the matrix product can use.
fn cpu_level() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return "avx512";
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return "avx2";
        }
    }
    "base"
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use super::{AnyPipeline, LoadError, LoadSettings, Path, Watch};

    pub(super) fn probe() -> Result<(), String> {
        Err("this build has no cuda; build with --features cuda".into())
    }

    pub(super) fn load(
        _settings: &LoadSettings,
        _directory: &Path,
        _watch: &mut Watch,
    ) -> Result<AnyPipeline, LoadError> {
        probe().map_err(LoadError::Device)?;
        unreachable!("probe() always refuses in this build")
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use burn::tensor::Tensor;
    use burn_cuda::{Cuda, CudaDevice};

    use super::{AnyPipeline, LoadError, LoadSettings, Path, Precision, Watch, values};

    type Gpu = Cuda<f32, i32>;

    /// Whether the first card can compute.
    pub(super) fn probe() -> Result<(), String> {
        if !Path::new("/proc/driver/nvidia/version").exists() {
            return Err("there is no NVIDIA driver (/proc/driver/nvidia/version)".into());
        }
        let compute = || {
            let two = Tensor::<Gpu, 1>::ones([2], &CudaDevice::default()).sum();
            values(two)
        };
        match catch_unwind(AssertUnwindSafe(compute)) {
            Ok(sum) if sum == [2.0] => Ok(()),
            Ok(sum) => Err(format!("CUDA computes 1 + 1 = {sum:?}")),
            Err(_) => Err("CUDA cannot be used; see the message above".into()),
        }
    }

    pub(super) fn load(
        settings: &LoadSettings,
        directory: &Path,
        watch: &mut Watch,
    ) -> Result<AnyPipeline, LoadError> {
        probe().map_err(LoadError::Device)?;
        let name = card_name();
        let kind = name.replace([' ', '/'], "-");
        let memory_bytes = settings.memory_bytes.or_else(card_memory);
        if memory_bytes.is_none() {
            tracing::warn!("nvidia-smi does not tell the card's memory: nothing is planned by it");
        }
        AnyPipeline::load_on::<Gpu>(
            settings,
            directory,
            &CudaDevice::default(),
            Precision::Bf16,
            ["cuda-bf16", &kind, &name],
            memory_bytes,
            watch,
        )
    }

    /// Bytes of the first card's memory, as the driver's own program tells it.
    fn card_memory() -> Option<u64> {
        let mut asked = std::process::Command::new("nvidia-smi");
        asked.args(["--query-gpu=memory.total", "--format=csv,noheader,nounits"]);
        let told = asked.output().ok()?;
        let mebibytes: u64 =
            String::from_utf8(told.stdout).ok()?.lines().next()?.trim().parse().ok()?;
        Some(mebibytes << 20)
    }

    /// The first card's name, as the driver tells it.
    fn card_name() -> String {
        let Ok(cards) = std::fs::read_dir("/proc/driver/nvidia/gpus") else {
            return "NVIDIA".into();
        };
        let mut folders: Vec<_> = cards.flatten().map(|card| card.path()).collect();
        folders.sort();
        let text =
            |folder: &std::path::PathBuf| std::fs::read_to_string(folder.join("information")).ok();
        let info = folders.first().and_then(text).unwrap_or_default();
        let line = info.lines().find(|line| line.starts_with("Model:"));
        line.and_then(|line| line.split(':').nth(1)).map_or("NVIDIA", str::trim).to_owned()
    }
}
