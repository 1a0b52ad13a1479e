//! Measures each stage on the CPU beside PyTorch, in turns in one run, and writes its section of
//! `node/BENCH.md`. `make bench-engine` calls it.
//!
//! The bundled toy at 128×128 and a generated model of width 384 with 8 layers at 256×256. Without
//! PyTorch and diffusers (`pip install -r node/diffusion/toy/requirements.txt`) only our own
//! figures are printed, and nothing is written.

#[path = "../../benches/report/mod.rs"]
mod report;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use atelier_diffusion::kernels::{Kernels, Mask, Then};
use atelier_diffusion::noise::{Purpose, normal};
use atelier_diffusion::synthetic::{self, Recipe, Scale};
use atelier_diffusion::tap::Tap;
use atelier_diffusion::{Pipeline, Precision, Request};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use report::{Report, median, milliseconds};

const PROMPT: &str = "a cat on a blue background";
/// What each figure is the median of.
const ROUNDS: usize = 15;
/// Rounds that nobody counts.
const WARM_UP: usize = 3;
const STAGES: [&str; 3] = ["encode", "step", "decode"];
/// Operations of the medium model by their sizes: heads, tokens, channels; channels, edge, groups;
/// rows, in, out.
const OPERATIONS: [&str; 8] = [
    "linear 320 384 384",
    "linear 320 384 1024",
    "linear 320 1024 384",
    "attention 6 320 64",
    "attention 1 1024 128",
    "conv 64 256",
    "conv 128 64",
    "norm 64 256 32",
];

fn main() {
    let about = "Written by `make bench-engine`: F32, 15 turns with PyTorch, the least time and in brackets the median; by the \
                 clock with 2 threads each, and what one thread alone has of the CPU, which others on the machine disturb less. \
                 Ratios are of the least times, ours over PyTorch's: below 1 is faster. Encode is the prompt's features; ours has the caption's \
                 refiner in it too, which PyTorch runs in every step. The weights of the medium model are random.";
    let mut report = Report::new("The engine beside PyTorch").about(about);
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("toy/model");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let medium = folder.path().join("medium");
    let settings = Scale::Medium.settings();
    let recipe = Recipe { settings, transformer: Precision::F32, seed: 0 };
    synthetic::write(&medium, &recipe, &mut |_, _| {}).expect("a generated model");
    let mut compared = stages(&mut report, "toy, 128×128", &toy, 128, &[]);
    compared &= stages(&mut report, "medium, 256×256", &medium, 256, &OPERATIONS);
    if compared {
        report.write();
    }
}

/// Measures a model; whether PyTorch was beside it.
fn stages(
    report: &mut Report,
    name: &str,
    directory: &Path,
    edge: u32,
    operations: &[&str],
) -> bool {
    let begun = Instant::now();
    let model = Pipeline::<Flex>::load(directory, &FlexDevice, &mut |_| {}).expect("a whole model");
    report.row(
        &format!("{name}: load"),
        milliseconds(begun.elapsed()),
        "files in the page cache".into(),
    );
    let ids = model.tokenizer.encode(PROMPT).ids;
    let threads = rayon::current_num_threads();
    let mut torch = [threads, 1].map(|threads| Torch::start(directory, edge, &ids, threads));
    let mut torch = match &mut torch {
        [Some(_), Some(_)] => Some(torch.map(|torch| torch.expect("both were started"))),
        _ => None,
    };
    for stage in STAGES {
        let ours = our_stage(&model, stage, edge, &ids);
        row(report, &format!("{name}: {stage}"), ours, torch.as_mut(), stage);
    }
    for operation in operations {
        row(report, operation, our_operation(operation), torch.as_mut(), operation);
    }
    let memory = |bytes: u64| format!("{} MiB", bytes >> 20);
    if let Some(torch) = &mut torch {
        let theirs = torch[0].ask("memory").parse().expect("bytes");
        let beside = format!(
            "PyTorch {}, both with this model and what was measured before",
            memory(theirs)
        );
        report.row(&format!("{name}: peak of the process"), memory(peak_memory()), beside);
    }
    torch.is_some()
}

type Work<'a> = Box<dyn FnMut() + Send + 'a>;

fn our_stage<'a>(model: &'a Pipeline<Flex>, stage: &str, edge: u32, ids: &'a [u32]) -> Work<'a> {
    let request = Request::new(PROMPT, edge, edge);
    let [height, width] = model.latents_size(edge, edge);
    match stage {
        "encode" => Box::new(|| {
            let features = model.text_encoder.forward(ids, &mut Tap::closed());
            model.transformer.embed_caption(features, &mut Tap::closed());
        }),
        "step" => {
            let mut run = model.begin(&request).expect("a valid request");
            let noise = run.latents();
            Box::new(move || {
                run.resume_from(noise.clone(), 0).expect("the run's own noise");
                run.step().expect("a finite step");
            })
        }
        _ => {
            let latents = normal(0, 0, Purpose::Latents, 16 * height * width);
            Box::new(move || {
                model.decode(latents.clone(), [1, 16, height, width]).expect("a finite picture");
            })
        }
    }
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<Flex, D> {
    let drawn = normal(1, 0, Purpose::Latents, shape.iter().product());
    Tensor::from_data(TensorData::new(drawn, shape), (&FlexDevice, DType::F32))
}

/// Takes a result that nobody reads; on the CPU it has been computed.
fn made<const D: usize>(result: Tensor<Flex, D>) {
    std::hint::black_box(result);
}

fn our_operation(operation: &str) -> Work<'static> {
    let mut words = operation.split(' ');
    let kind = words.next().expect("a kind");
    let sizes: Vec<usize> = words.map(|word| word.parse().expect("a size")).collect();
    match kind {
        "attention" => {
            let x = random([1, sizes[1], sizes[0], sizes[2]]);
            Box::new(move || made(Flex::attend(x.clone(), x.clone(), x.clone(), &Mask::None)))
        }
        "conv" => {
            let x = random([1, sizes[0], sizes[1], sizes[1]]);
            let weight = random([sizes[0], sizes[0], 3, 3]);
            let options = || ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
            Box::new(move || made(conv2d(x.clone(), weight.clone(), None, options())))
        }
        "norm" => {
            let x = random([1, sizes[0], sizes[1], sizes[1]]);
            let affine = [random([sizes[0]]), random([sizes[0]])];
            Box::new(move || {
                made(Flex::group_norm(x.clone(), affine.clone(), sizes[2], 1e-6, Then::Silu));
            })
        }
        _ => {
            let (x, weight) =
                (random([sizes[0], sizes[1]]), random([sizes[2], sizes[1]]).transpose());
            Box::new(move || made(x.clone().matmul(weight.clone())))
        }
    }
}

/// Measures one thing in turns with PyTorch: by the clock with all threads, and by the CPU with one.
fn row(
    report: &mut Report,
    figure: &str,
    mut ours: Work,
    torch: Option<&mut [Torch; 2]>,
    asked: &str,
) {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let [mut our_wall, mut our_cpu, mut their_wall, mut their_cpu] =
        <[Vec<Duration>; 4]>::default();
    let mut torch = torch;
    for round in 0..WARM_UP + ROUNDS {
        let begun = Instant::now();
        ours();
        let wall = begun.elapsed();
        let theirs = torch.as_deref_mut().map(|torch| torch[0].time(asked)[0]);
        let before = cpu_time();
        one.install(&mut ours);
        let cpu = cpu_time() - before;
        let theirs_alone = torch.as_deref_mut().map(|torch| torch[1].time(asked)[1]);
        if round >= WARM_UP {
            our_wall.push(wall);
            our_cpu.push(cpu);
            their_wall.extend(theirs);
            their_cpu.extend(theirs_alone);
        }
    }
    let [wall, cpu] = [&mut our_wall, &mut our_cpu].map(|times| (least(times), median(times)));
    let value = format!("{}, one thread {}", both(wall), both(cpu));
    let beside = if their_wall.is_empty() {
        "PyTorch is not here".to_owned()
    } else {
        let [w, c] = [&mut their_wall, &mut their_cpu].map(|times| (least(times), median(times)));
        let ratio = |ours: Duration, theirs: Duration| ours.as_secs_f64() / theirs.as_secs_f64();
        let [of_wall, of_cpu] = [ratio(wall.0, w.0), ratio(cpu.0, c.0)];
        format!(
            "PyTorch {}, one thread {}; ratio {of_wall:.2}, one thread {of_cpu:.2}",
            both(w),
            both(c)
        )
    };
    report.row(figure, value, beside);
}

fn least(times: &[Duration]) -> Duration {
    times.iter().copied().min().unwrap_or_default()
}

fn both((least, median): (Duration, Duration)) -> String {
    format!("{} ({})", milliseconds(least), milliseconds(median))
}

/// What all threads of this process have had of the CPU.
fn cpu_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").expect("the own threads");
    let spent = |thread: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(threads.filter_map(spent).sum())
}

/// PyTorch in a process of its own, which answers one question at a time.
struct Torch {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Torch {
    fn start(directory: &Path, edge: u32, ids: &[u32], threads: usize) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/torch_stages.py");
        let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        let edge = edge.to_string();
        let mut command = Command::new(python);
        command.arg(script).arg(directory).args([&edge, &edge]);
        command.args([threads.to_string(), ids.join(",")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let questions = child.stdin.take()?;
        let answers = BufReader::new(child.stdout.take()?);
        let mut torch = Self { child, questions, answers };
        let version = torch.answer();
        if version.is_empty() {
            println!("PyTorch does not answer; pip install -r node/diffusion/toy/requirements.txt");
            return None;
        }
        println!("PyTorch {version}, {threads} threads");
        Some(torch)
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.questions, "{question}").expect("PyTorch listens");
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("PyTorch speaks");
        line.trim().to_owned()
    }

    /// Seconds by the clock, and of the CPU.
    fn time(&mut self, question: &str) -> [Duration; 2] {
        let answer = self.ask(question);
        let mut seconds = answer.split(' ').map(|number| number.parse().expect("seconds"));
        [(); 2].map(|()| Duration::from_secs_f64(seconds.next().expect("two times")))
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        // It is of no more use, whether it still answers or not.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn peak_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) << 10
}
