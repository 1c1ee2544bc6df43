//! The seeded generator that decides what the simulated world does.

/// A stream of numbers that is the same for the same seed, on every machine and with every compiler.
///
/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014), written out because the
/// workspace's `rand` has only the operating system's generator, and because a seed that found a defect must find it
/// again after any update of a dependency. Not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias is at most `end / 2^64`: nothing that a simulation could notice.
        self.draw() % end
    }

    /// True `numerator` times out of `denominator`.
    pub fn odds(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }

    /// A generator of its own, so that one part of a simulation may draw more or less without moving another's numbers.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.draw())
    }

    /// Fills a buffer.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.draw().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_seed_0_is_the_published_one() {
        let mut random = Random::new(0);
        assert_eq!(random.draw(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.draw(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn odds_are_about_what_they_say() {
        let mut random = Random::new(1);
        let hits = (0..10_000).filter(|_| random.odds(1, 4)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
    }
}
