//! Loading reads each file once, tells what it does, and holds little beside the model.

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use atelier_diffusion::layout::Layout;
use atelier_diffusion::{
    LoadError, LoadOptions, LoadProgress, MemoryPlan, Pipeline, Placement, Precision, Request,
    RequestError, Watch,
};
use burn_flex::{Flex, FlexDevice};
use sha2::{Digest, Sha256};
use support::{Copy, draw, golden, golden_model, request};

fn load_with(directory: &Path, options: LoadOptions) -> Result<Pipeline<Flex>, LoadError> {
    let mut watch = Watch { progress: &mut |_| {}, bytes: None };
    Pipeline::load_with(directory, &FlexDevice, options, &mut watch)
}

#[test]
fn every_byte_of_every_file_is_read_once_and_in_order() {
    let directory = golden().join("pipeline");
    let mut seen: HashMap<PathBuf, Vec<u8>> = HashMap::new();
    let mut order: Vec<PathBuf> = Vec::new();
    let mut see = |path: &Path, bytes: &[u8]| {
        if order.last().is_none_or(|last| last != path) {
            order.push(path.to_path_buf());
        }
        seen.entry(path.to_path_buf()).or_default().extend(bytes);
    };
    let mut watch = Watch { progress: &mut |_| {}, bytes: Some(&mut see) };
    let options = LoadOptions::new(Precision::F32);
    let model = Pipeline::<Flex>::load_with(&directory, &FlexDevice, options, &mut watch);
    let files = model.expect("the golden model is whole").files;
    assert_eq!(files.len(), 5, "two, two and one");
    assert_eq!(order, files.iter().map(|file| file.path.clone()).collect::<Vec<_>>());
    assert!(order.is_sorted(), "files are read in the order of their paths");
    for file in files {
        let bytes = std::fs::read(&file.path).expect("a file of the golden model");
        assert!(seen[&file.path] == bytes, "{}", file.path.display());
        assert_eq!(file.bytes, bytes.len() as u64);
        assert_eq!(file.sha256[..], Sha256::digest(&bytes)[..], "{}", file.path.display());
    }
}

#[test]
fn progress_rises_to_all_bytes_and_all_tensors_of_each_component() {
    let mut told: Vec<LoadProgress> = Vec::new();
    let mut tell = |now| told.push(now);
    let mut watch = Watch { progress: &mut tell, bytes: None };
    let options = LoadOptions::new(Precision::F32);
    let directory = golden().join("pipeline");
    let model = Pipeline::<Flex>::load_with(&directory, &FlexDevice, options, &mut watch);
    let model = model.expect("the golden model is whole");
    for component in ["text_encoder", "transformer", "vae"] {
        let of: Vec<_> = told.iter().filter(|now| now.component == component).collect();
        assert!(of.is_sorted_by_key(|now| (now.bytes, now.tensors, now.elapsed)), "{component}");
        let last = of.last().expect("it was told");
        assert_eq!((last.bytes, last.tensors), (last.bytes_total, last.tensors_total));
        assert!(last.bytes_per_second() > 0.0);
        let folder = golden().join("pipeline").join(component);
        let files = model.files.iter().filter(|file| file.path.starts_with(&folder));
        assert_eq!(last.bytes_total, files.map(|file| file.bytes).sum::<u64>());
    }
}

#[test]
fn all_headers_are_judged_before_a_byte_of_weights_is_read() {
    let copy = Copy::new();
    copy.remove("vae", "decoder.conv_out.bias");
    let mut pieces = 0;
    let mut see = |_: &Path, _: &[u8]| pieces += 1;
    let mut watch = Watch { progress: &mut |_| {}, bytes: Some(&mut see) };
    let options = LoadOptions::new(Precision::F32);
    let refused = Pipeline::<Flex>::load_with(&copy.path(""), &FlexDevice, options, &mut watch);
    assert!(refused.is_err());
    assert_eq!(pieces, 0, "the last component was judged before the first was read");
}

#[test]
fn a_text_encoder_on_the_host_draws_the_same() {
    let directory = golden().join("pipeline");
    for precision in [Precision::F32, Precision::Bf16] {
        let picture = |text_encoder| {
            let text_encoder = Some(text_encoder);
            let options = LoadOptions { text_encoder, ..LoadOptions::new(precision) };
            let model = load_with(&directory, options).expect("the golden model is whole");
            draw(&model, &request("a fox"))
        };
        assert!(picture(Placement::Device) == picture(Placement::Host), "{precision:?}");
    }
}

/// The plan of the golden model at its own size, in F32.
fn plan() -> (MemoryPlan, atelier_diffusion::config::PipelineConfig) {
    let config = golden_model().config;
    let layout = Layout::of(&config);
    let size = [config.autoencoder.sample_size; 2];
    (MemoryPlan::new(&config, &layout, Precision::F32, Placement::Device, size), config)
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_what_would_help() {
    let (whole, config) = plan();
    let tiled = whole.clone().tiled(&config, Precision::F32);
    assert!(tiled.work < whole.work);
    let load = |text_encoder, memory_bytes| {
        let (text_encoder, memory_bytes) = (Some(text_encoder), Some(memory_bytes));
        let options =
            LoadOptions { text_encoder, memory_bytes, ..LoadOptions::new(Precision::F32) };
        load_with(&golden().join("pipeline"), options)
    };
    let fits = load(Placement::Device, whole.device_bytes()).expect("exactly enough");
    assert!(!fits.plan.is_tiled);
    let fits = load(Placement::Device, whole.device_bytes() - 1).expect("enough for tiles");
    assert!(fits.plan.is_tiled);
    let refusal = |placement, bytes| load(placement, bytes).err().expect("too little").to_string();
    let text = refusal(Placement::Device, tiled.device_bytes() - 1);
    assert!(text.contains("--text-encoder host"), "{text}");
    let without = tiled.device_bytes() - tiled.text_encoder;
    load(Placement::Host, without).expect("enough without the text encoder");
    let options = LoadOptions { memory_bytes: Some(without), ..LoadOptions::new(Precision::F32) };
    let chosen = load_with(&golden().join("pipeline"), options).expect("the host has room");
    assert_eq!(chosen.plan.placement, Placement::Host, "where no place is named");
    let text = refusal(Placement::Host, without - 1);
    assert!(text.contains("use a device with more memory"), "{text}");
    assert!(text.contains("GB on a device with"), "{text}");
}

#[test]
fn a_picture_that_does_not_fit_is_refused_before_it_is_begun() {
    let (whole, _) = plan();
    let memory_bytes = Some(whole.device_bytes());
    let options = LoadOptions { memory_bytes, ..LoadOptions::new(Precision::F32) };
    let model = load_with(&golden().join("pipeline"), options).expect("exactly enough");
    assert!(model.validate(&Request::new("a fox", 1024, 1024)).is_ok());
    let refusal = model.validate(&Request::new("a fox", 1040, 1024)).expect_err("larger");
    assert!(matches!(refusal, RequestError::Memory { .. }), "{refusal}");
    assert!(refusal.to_string().contains("draw a smaller one"), "{refusal}");
}

#[test]
fn a_picture_in_tiles_resembles_the_one_decoded_at_once() {
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("toy/model");
    let (whole, tiled) = (load_with(&toy, LoadOptions::new(Precision::F32)), {
        let config = atelier_diffusion::config::PipelineConfig::read(&toy).expect("the toy");
        let layout = Layout::of(&config);
        // A plan for a large picture, so that memory for the small one asks for tiles.
        let size = [config.autoencoder.sample_size; 2];
        let plan = MemoryPlan::new(&config, &layout, Precision::F32, Placement::Device, size);
        (plan, config)
    });
    let whole = whole.expect("the bundled model");
    let (plan, config) = tiled;
    // The toy's own size fits one tile, so its plan never asks for more.
    assert_eq!(plan.clone().tiled(&config, Precision::F32).work, plan.work);
    let mut tiled = load_with(&toy, LoadOptions::new(Precision::F32)).expect("the bundled model");
    tiled.plan.is_tiled = true;
    let size = [1, 16, 80, 96];
    let latents: Vec<f32> =
        (0..16 * 80 * 96).map(|i| ((i * 7919 % 1000) as f32 - 500.0) / 400.0).collect();
    let (at_once, in_tiles) = (whole.decode(latents.clone(), size), tiled.decode(latents, size));
    let (at_once, in_tiles) = (at_once.expect("finite"), in_tiles.expect("finite"));
    assert_eq!(at_once.len(), in_tiles.len());
    assert!(at_once != in_tiles, "tiles were used");
    let off = at_once.iter().zip(&in_tiles).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();
    let mean = off / at_once.len() as f64;
    assert!(mean < 0.05, "{mean}");
}

#[test]
fn beside_the_model_loading_holds_less_than_the_files() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let program = env!("CARGO_BIN_EXE_checkpoint");
    let model = folder.path().join("model");
    let mut generate = Command::new(program);
    generate.arg("generate").arg(&model).args(["--scale", "medium"]);
    for set in ["transformer.n_layers=40", "text_encoder.num_hidden_layers=2"] {
        generate.args(["--set", set]);
    }
    let made = generate.output().expect("the program runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let loaded =
        Command::new(program).arg("load").arg(&model).args(["--precision", "bf16"]).output();
    let loaded = loaded.expect("the program runs");
    let text = String::from_utf8_lossy(&loaded.stdout).into_owned();
    assert!(loaded.status.success(), "{text}{}", String::from_utf8_lossy(&loaded.stderr));
    let gigabytes = |line: &str| {
        let rest = text.lines().find_map(|l| l.strip_prefix(line)).expect("a figure is told");
        rest.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).expect("a number")
    };
    let (read, above) = (gigabytes("read "), gigabytes("above the model "));
    println!("{text}");
    assert!(read > 0.35, "{read} GB are too little to tell");
    assert!(above < 0.6 * read, "{above} GB beside the model of {read} GB of files");
}

#[test]
fn plans_of_cards_are_printed_and_refused_by_exit_status() {
    let golden = golden().join("pipeline");
    let plan = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_checkpoint"));
        command.arg("plan").arg(&golden).args(arguments).output().expect("the program runs")
    };
    let all = plan(&[]);
    let text = String::from_utf8_lossy(&all.stdout).into_owned();
    assert!(all.status.success());
    for part in ["card of 16 GB", "card of 141 GB", "transformer", "decoded at once"] {
        assert!(text.contains(part), "{text}");
    }
    let small = plan(&["--memory", "0.5"]);
    assert!(!small.status.success());
    assert!(String::from_utf8_lossy(&small.stdout).contains("does not fit"));
}
