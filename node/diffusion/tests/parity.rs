//! Every component against what the reference itself computed, within the stated tolerances.

mod support;

use std::process::Command;

use support::golden;

#[test]
fn every_tensor_of_the_golden_set_is_within_its_tolerance() {
    let out = tempfile::TempDir::new().expect("a temporary folder");
    let run = Command::new(env!("CARGO_BIN_EXE_parity")).arg(golden()).arg(out.path()).output();
    let run = run.expect("the parity program runs");
    let text = String::from_utf8_lossy(&run.stdout);
    let told: Vec<&str> = text.lines().filter(|line| !line.starts_with("pass ")).collect();
    let passed = text.lines().filter(|line| line.starts_with("pass ")).count();
    assert!(run.status.success(), "{}\n{}", told.join("\n"), String::from_utf8_lossy(&run.stderr));
    // A set that is not read would pass as well.
    assert!(passed >= 226, "only {passed} comparisons were made");
    assert!(out.path().join("txt2img.safetensors").exists());
    assert!(out.path().join("images/txt2img.png").exists());
}

#[test]
fn ordinary_prompts_have_the_reference_ids_on_the_users_path_too() {
    let model = support::golden_model();
    let text = std::fs::read(golden().join("tokenizer_cases.json")).expect("the golden set");
    let cases: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let special = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>"];
    let mut compared = 0;
    for case in cases["cases"].as_array().expect("cases") {
        let text = case["text"].as_str().expect("a text");
        if special.iter().any(|token| text.contains(token)) {
            continue;
        }
        assert_eq!(
            serde_json::json!(model.tokenizer.encode(text).ids),
            case["chat_ids"],
            "{text:?}"
        );
        compared += 1;
    }
    assert!(compared >= 15, "only {compared} texts were compared");
}

#[test]
fn a_long_prompt_is_cut_off_at_the_right() {
    let model = support::golden_model();
    let tokens = model.tokenizer.encode(&"a cat and a dog ".repeat(400));
    assert_eq!(tokens.ids.len(), 512);
    assert!(tokens.cut > 0);
    assert_eq!(
        tokens.ids[..3],
        model.tokenizer.encode("").ids[..3],
        "the template's begin is kept"
    );
    assert_ne!(tokens.ids[507..], model.tokenizer.encode("").ids[4..], "its end is cut off");
}
