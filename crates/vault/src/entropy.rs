//! Where randomness comes from: the one place in the program that asks the operating system.
//!
//! Everything else takes an [`Entropy`], so that a test can replay what production draws.

/// A source of bytes that nobody can guess.
pub trait Entropy {
    /// Fills all of `buf`.
    fn fill(&mut self, buf: &mut [u8]);
}

/// The operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    /// Fills all of `buf`, or ends the process with a line on stderr: without randomness every
    /// key made from here on would be a guess, and no caller could do better than to stop.
    #[allow(clippy::disallowed_methods, clippy::print_stderr, reason = "the one place that reads randomness; its last words must be seen")]
    fn fill(&mut self, buf: &mut [u8]) {
        if let Err(error) = getrandom::fill(buf) {
            eprintln!("the operating system gives no randomness, no key can be made: {error}");
            std::process::abort();
        }
    }
}
