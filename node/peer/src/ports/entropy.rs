//! Randomness, as the loops see it.

/// Gives bytes that nobody can guess.
pub trait Entropy: Send + Sync + 'static {
    /// Fills a buffer.
    ///
    /// # Panics
    /// When the system has no randomness to give; there is no way to go on safely without it.
    fn fill(&self, bytes: &mut [u8]);
}
