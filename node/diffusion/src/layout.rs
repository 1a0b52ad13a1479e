//! The tensors that a configuration needs, without a single weight.
//!
//! Owns the three lists, made by the components' own walks over imagined weights, so that loading,
//! the memory plan and the generator agree with what is computed.

use burn_flex::{Flex, FlexDevice};

use crate::autoencoder::AutoencoderKL;
use crate::config::PipelineConfig;
use crate::text_encoder::Qwen3Model;
use crate::transformer::ZImageTransformer2DModel;
use crate::weights::{Wanted, Weights};

/// Every tensor of a pipeline, by component, in the order in which it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// `text_encoder`, its last layer and final norm included.
    pub text_encoder: Vec<Wanted>,
    /// `transformer`.
    pub transformer: Vec<Wanted>,
    /// `vae`.
    pub vae: Vec<Wanted>,
}

impl Layout {
    /// Lists what a configuration needs.
    #[must_use]
    pub fn of(config: &PipelineConfig) -> Self {
        const PRESENT: &str = "imagined weights are all there";
        let imagined = |component| Weights::<Flex>::imagined(component, &FlexDevice);
        let mut text_encoder = imagined("text_encoder");
        Qwen3Model::load(&mut text_encoder, &config.text_encoder).expect(PRESENT);
        let mut transformer = imagined("transformer");
        ZImageTransformer2DModel::load(&mut transformer, &config.transformer).expect(PRESENT);
        let mut vae = imagined("vae");
        AutoencoderKL::load(&mut vae, &config.autoencoder).expect(PRESENT);
        Self {
            text_encoder: text_encoder.layout().to_vec(),
            transformer: transformer.layout().to_vec(),
            vae: vae.layout().to_vec(),
        }
    }
}
