//! The same request gives the same bytes: in one process, in several, under load, and after a
//! checkpoint.

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use atelier_diffusion::noise::{Purpose, normal};
use atelier_diffusion::{AnyPipeline, BackendChoice, Pipeline, Request, Run};
use burn_flex::Flex;
use support::{golden, golden_model, request};

/// Large enough that products, convolutions and norms are split over threads.
fn large() -> Request {
    Request { width: 256, height: 208, ..request("a red fox, 红色的狐狸") }
}

fn finish(mut run: Run<Flex>) -> Vec<u8> {
    while run.step().expect("a finite step").is_some() {}
    run.decode().expect("a finite picture").to_png()
}

fn draw(model: &Pipeline<Flex>, request: &Request) -> Vec<u8> {
    finish(model.begin(request).expect("a valid request"))
}

#[test]
fn noise_has_these_bits_on_every_machine() {
    let bits: Vec<u32> = normal(42, 3, Purpose::Latents, 6).iter().map(|v| v.to_bits()).collect();
    assert_eq!(bits, NOISE_BITS);
    let all = normal(7, 0, Purpose::Latents, 65_536);
    let bytes: Vec<u8> = all.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect();
    assert_eq!(blake3::hash(&bytes).to_hex()[..16], *NOISE_DIGEST);
}

/// Checked against the same two formulas in Python, whose numbers come from the system's library.
const NOISE_BITS: [u32; 6] =
    [3_222_851_934, 1_062_820_866, 3_207_082_355, 3_203_299_712, 1_062_883_379, 1_061_270_458];
const NOISE_DIGEST: &str = "f283d09798f188dd";

#[test]
fn a_request_repeated_gives_the_same_bytes() {
    let model = golden_model();
    let first = draw(&model, &request("a fox"));
    // The second run takes the caption from the cache.
    assert_eq!(first, draw(&model, &request("a fox")));
    assert_eq!(first, draw(&golden_model(), &request("a fox")));
    for other in [
        Request { seed: 8, ..request("a fox") },
        Request { image_index: 1, ..request("a fox") },
        Request { steps: 4, ..request("a fox") },
        request("a box"),
    ] {
        assert_ne!(first, draw(&model, &other));
    }
}

#[test]
fn a_run_resumed_from_any_checkpoint_gives_the_same_bytes() {
    let request = Request { steps: 5, ..request("a fox") };
    let model = golden_model();
    let undisturbed = draw(&model, &request);
    let mut run = model.begin(&request).expect("a valid request");
    let mut checkpoints = vec![(run.latents(), 0)];
    while let Some(report) = run.step().expect("a finite step") {
        checkpoints.push((run.latents(), report.step));
    }
    for (latents, step) in checkpoints {
        let elsewhere = golden_model();
        let mut run = elsewhere.begin(&request).expect("a valid request");
        run.resume_from(latents, step).expect("a checkpoint of this run");
        assert_eq!(finish(run), undisturbed, "resumed after step {step}");
    }
}

#[test]
fn a_run_that_is_looked_at_gives_the_same_bytes() {
    let request = Request { steps: 5, ..request("a fox") };
    let model = golden_model();
    let undisturbed = draw(&model, &request);
    for _ in 0..2 {
        let mut run = model.begin(&request).expect("a valid request");
        assert_eq!(run.preview(), None, "before the first step there is nothing but noise");
        let mut latents = Vec::new();
        while run.step().expect("a finite step").is_some() {
            let preview = run.preview().expect("a step was done");
            let scale = model.config.autoencoder.scale() as u32;
            let size = (request.width / scale, request.height / scale);
            assert_eq!((preview.width, preview.height), size);
            latents = run.latents();
        }
        run.resume_from(latents, 5).expect("a checkpoint of this run");
        assert_eq!(run.preview(), None, "the step before the checkpoint was done elsewhere");
        assert_eq!(finish(run), undisturbed);
    }
}

#[test]
fn runs_at_the_same_time_do_not_disturb_each_other() {
    let model = golden_model();
    let alone = draw(&model, &large());
    std::thread::scope(|scope| {
        let drawn: Vec<_> = (0..4).map(|_| scope.spawn(|| draw(&model, &large()))).collect();
        for picture in drawn {
            assert_eq!(picture.join().expect("a picture"), alone);
        }
    });
}

/// Prints what this process draws; the next test starts it with other numbers of threads.
#[test]
fn the_digest_of_a_picture() {
    let picture = draw(&golden_model(), &large());
    println!("digest {}", blake3::hash(&picture).to_hex());
    let model = AnyPipeline::load(BackendChoice::Cpu, &golden().join("pipeline"), &mut |_| {});
    println!("class {}", model.expect("the golden model is whole").class());
}

#[test]
fn processes_with_any_number_of_threads_give_the_same_bytes_under_load() {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let told: Vec<(u32, Vec<String>)> = [1, 2, 3, 7].map(|n| (n, child(n))).to_vec();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(told[0].1.len(), 2, "a digest and a class");
        for (threads, lines) in &told {
            assert_eq!(*lines, told[0].1, "with {threads} threads");
        }
    });
}

fn child(threads: u32) -> Vec<String> {
    let test = std::env::current_exe().expect("this test has a file");
    let mut command = Command::new(test);
    command.args(["--exact", "the_digest_of_a_picture", "--nocapture"]);
    command.env("RAYON_NUM_THREADS", threads.to_string());
    let told = command.output().expect("the test starts itself");
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    let wanted = |line: &&str| line.starts_with("digest ") || line.starts_with("class ");
    text.lines().filter(wanted).map(str::to_owned).collect()
}

#[test]
fn the_class_names_build_backend_and_device() {
    let model = AnyPipeline::load(BackendChoice::Auto, &golden().join("pipeline"), &mut |_| {})
        .expect("auto always finds a device");
    let parts: Vec<&str> = model.class().split('/').collect();
    assert_eq!(parts.len(), 4, "{}", model.class());
    assert!(parts[0].contains("burn"), "{}", model.class());
    assert!(!model.device_name().is_empty());
}

#[test]
#[cfg(not(feature = "cuda"))]
fn cuda_without_cuda_is_an_error_and_no_panic() {
    let model = AnyPipeline::load(BackendChoice::Cuda, &golden().join("pipeline"), &mut |_| {});
    let error = model.err().expect("this build has no cuda").to_string();
    assert!(error.contains("use the backend cpu, or auto"), "{error}");
}
