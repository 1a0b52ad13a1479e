//! An engine without a model: what it draws follows from the parameters, how it fares from them and
//! from the faults of the plan.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Parameters of a simulated job, as JSON in the job's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drawing {
    /// Which picture: equal numbers give equal bytes.
    pub picture: u32,
    /// Denoise steps.
    pub steps: u64,
    /// What it does to engines.
    pub nature: Nature,
}

/// What a job does to the engine that draws it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nature {
    /// It is drawn.
    Fine,
    /// The engine refuses it, and so would any other.
    Refused,
    /// It kills the engine after its first step, each time.
    Deadly,
}

/// How one draw ends when nobody disturbs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    /// With a picture.
    Drawn(Bytes),
    /// With a refusal; another attempt would fail in the same way.
    Refused,
    /// With the death of the engine; another attempt may succeed.
    Crashed,
}

impl Drawing {
    /// Writes the parameters as a job carries them.
    pub fn to_bytes(self) -> Bytes {
        serde_json::to_vec(&self).expect("parameters are plain data").into()
    }

    /// Reads the parameters of a job.
    ///
    /// # Errors
    /// When they are not from [`Drawing::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Drawing, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// Returns the picture of a drawing: the same bytes on every engine, after any number of attempts.
pub fn drawn(drawing: Drawing) -> Bytes {
    let text = format!("picture {} in {} steps", drawing.picture, drawing.steps);
    Bytes::copy_from_slice(blake3::hash(text.as_bytes()).as_bytes())
}

/// Tells how an undisturbed draw ends, and after how many denoise steps.
pub fn ends(drawing: Drawing) -> (u64, Course) {
    match drawing.nature {
        Nature::Fine => (drawing.steps, Course::Drawn(drawn(drawing))),
        Nature::Refused => (0, Course::Refused),
        Nature::Deadly => (1, Course::Crashed),
    }
}
