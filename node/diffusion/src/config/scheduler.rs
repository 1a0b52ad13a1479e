//! `scheduler/scheduler_config.json`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{BROKEN_FILE, Check, ConfigError, OTHER_MODEL, read_json};

/// `scheduler/scheduler_config.json`; in prose, the noise schedule.
#[derive(Debug, Clone, Deserialize)]
pub struct SchedulerConfig {
    #[serde(rename = "_class_name")]
    class_name: String,
    /// What a sigma of 1 is called as a timestep.
    pub num_train_timesteps: usize,
    /// The static shift; 3 for Turbo, 6 for the base model.
    pub shift: f64,
    /// Whether the shift depends on the picture's size; then `shift` is ignored.
    #[serde(default)]
    pub use_dynamic_shifting: bool,
    /// Dynamic shift at `base_image_seq_len` tokens.
    #[serde(default = "base_shift")]
    pub base_shift: f64,
    /// Dynamic shift at `max_image_seq_len` tokens.
    #[serde(default = "max_shift")]
    pub max_shift: f64,
    /// Tokens of the small reference picture.
    #[serde(default = "base_image_seq_len")]
    pub base_image_seq_len: usize,
    /// Tokens of the large reference picture.
    #[serde(default = "max_image_seq_len")]
    pub max_image_seq_len: usize,
    /// Every other key, to refuse what would change the schedule.
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

fn base_shift() -> f64 {
    0.5
}

fn max_shift() -> f64 {
    1.15
}

fn base_image_seq_len() -> usize {
    256
}

fn max_image_seq_len() -> usize {
    4096
}

impl SchedulerConfig {
    /// Reads `scheduler/scheduler_config.json`.
    ///
    /// # Errors
    /// Any [`ConfigError`]; for instance a schedule with Karras sigmas or stochastic sampling.
    pub fn read(directory: &Path) -> Result<Self, ConfigError> {
        let path = directory.join("scheduler/scheduler_config.json");
        let config: Self = read_json(&path)?;
        config.check(&Check { path: &path })?;
        Ok(config)
    }

    fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.class(&self.class_name, "FlowMatchEulerDiscreteScheduler")?;
        check.positive("num_train_timesteps", self.num_train_timesteps)?;
        check.finite("shift", self.shift)?;
        let off = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
        for key in [
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "invert_sigmas",
            "stochastic_sampling",
            "shift_terminal",
        ] {
            if let Some(value) = self.rest.get(key) {
                check.that(off(value), key, value, "false or null", OTHER_MODEL)?;
            }
        }
        let kind =
            self.rest.get("time_shift_type").and_then(Value::as_str).unwrap_or("exponential");
        check.that(kind == "exponential", "time_shift_type", kind, "exponential", OTHER_MODEL)?;
        let (base, max) = (self.base_image_seq_len, self.max_image_seq_len);
        check.that(
            base < max,
            "max_image_seq_len",
            max,
            format!("more than base_image_seq_len {base}"),
            BROKEN_FILE,
        )
    }
}
