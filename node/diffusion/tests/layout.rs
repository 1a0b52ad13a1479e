//! The real checkpoint's names, shapes and sizes, without a single weight.

mod support;

use std::collections::BTreeMap;

use atelier_diffusion::autoencoder::AutoencoderKL;
use atelier_diffusion::config::{AutoencoderConfig, TextEncoderConfig, TransformerConfig};
use atelier_diffusion::text_encoder::Qwen3Model;
use atelier_diffusion::transformer::ZImageTransformer2DModel;
use atelier_diffusion::weights::{Wanted, Weights};
use burn_flex::{Flex, FlexDevice};
use serde_json::{Value, json};
use tempfile::TempDir;

type Layout = BTreeMap<String, Vec<usize>>;

/// What the reference's own classes give for the full-size configuration.
fn reference() -> Value {
    let text = std::fs::read(support::golden().join("real_layout.json")).expect("the layout");
    serde_json::from_slice(&text).expect("JSON")
}

/// Writes a component's configuration where its reader looks for it.
fn folder_with(component: &str, class: &str) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let mut config = reference()["config"][component].clone();
    config["_class_name"] = json!(class);
    std::fs::create_dir(folder.path().join(component)).expect("a folder");
    let path = folder.path().join(component).join("config.json");
    std::fs::write(path, config.to_string()).expect("a file");
    folder
}

fn compare(component: &str, weights: &Weights<Flex>, tensors: usize, parameters: usize) {
    let reference = &reference()[component];
    let pair = |wanted: &Wanted| (wanted.name.clone(), wanted.shape.clone());
    let ours: Layout = weights.layout().iter().map(pair).collect();
    let theirs: Layout = serde_json::from_value(reference["tensors"].clone()).expect("a layout");
    for (name, shape) in &theirs {
        assert_eq!(ours.get(name), Some(shape), "{component}: {name}");
    }
    for name in ours.keys() {
        assert!(theirs.contains_key(name), "{component} has no {name}");
    }
    assert_eq!(weights.layout().len(), tensors, "each tensor of {component} is asked for once");
    let count = |shape: &Vec<usize>| shape.iter().product::<usize>();
    assert_eq!(ours.values().map(count).sum::<usize>(), parameters);
    assert_eq!(reference["parameters"], json!(parameters));
}

#[test]
fn the_transformer_has_521_tensors_and_6_154_908_736_parameters() {
    let folder = folder_with("transformer", "ZImageTransformer2DModel");
    let config = TransformerConfig::read(folder.path()).expect("the real configuration");
    let mut weights = Weights::<Flex>::imagined("transformer", &FlexDevice);
    ZImageTransformer2DModel::load(&mut weights, &config).expect("imagined weights are all there");
    compare("transformer", &weights, 521, 6_154_908_736);
}

#[test]
fn the_autoencoder_has_83_819_683_parameters() {
    let folder = folder_with("vae", "AutoencoderKL");
    let config = AutoencoderConfig::read(folder.path()).expect("the real configuration");
    let mut weights = Weights::<Flex>::imagined("vae", &FlexDevice);
    AutoencoderKL::load(&mut weights, &config).expect("imagined weights are all there");
    compare("vae", &weights, 244, 83_819_683);
}

#[test]
fn the_text_encoder_has_4_022_468_096_parameters() {
    let folder = folder_with("text_encoder", "Qwen3Model");
    let config = TextEncoderConfig::read(folder.path()).expect("the real configuration");
    let mut weights = Weights::<Flex>::imagined("text_encoder", &FlexDevice);
    Qwen3Model::load(&mut weights, &config).expect("imagined weights are all there");
    compare("text_encoder", &weights, 398, 4_022_468_096);
}

#[test]
fn newer_files_may_nest_the_rotary_base() {
    let folder = folder_with("text_encoder", "Qwen3Model");
    let path = folder.path().join("text_encoder/config.json");
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    config.as_object_mut().expect("an object").remove("rope_theta");
    config["rope_parameters"] = json!({"rope_theta": 1_000_000, "rope_type": "default"});
    std::fs::write(&path, config.to_string()).expect("a file");
    let config = TextEncoderConfig::read(folder.path()).expect("a nested base is accepted");
    assert!((config.rope_theta() - 1e6).abs() < 1e-9);
}
