//! Many stored sketches put together, without making each of them.
//!
//! A question about latency is one about thousands of rows, each with a sketch of some dozen bins. Here their bins are added up
//! as they are read, in one array. What is in no form that this program writes goes the long way, and so does what lies outside
//! of the array.

use super::usage::{Sketch, config};

/// The bins of durations that there can be: from 10⁻⁹ milliseconds on.
const FIRST: i64 = -1100;
const BINS: usize = 4096;

/// What the stored form begins its parts with.
const COUNT: u8 = 0xa0;
const MIN: u8 = 0x88;
const MAX: u8 = 0x8c;
const SUM: u8 = 0x84;
const ZERO: u8 = 0x04;
const MAPPING: u8 = 0x02;
/// Bins as the distance from the one before and how many there are.
const BINS_BY_DISTANCE: u8 = 0x05;

/// Sketches so far.
pub struct Merged {
    bins: Vec<u64>,
    zero: u64,
    /// The precision of ours.
    gamma: f64,
    /// Those that went the long way.
    others: Sketch,
    /// The bins of one that is being read: it counts as a whole or not at all.
    read: Vec<(usize, u64)>,
}

impl Default for Merged {
    fn default() -> Self {
        Self { bins: vec![0; BINS], zero: 0, gamma: config().gamma, others: Sketch::new(), read: Vec::new() }
    }
}

impl Merged {
    /// Adds one as the store has it. A damaged one is left out.
    pub fn add(&mut self, bytes: &[u8]) {
        self.read.clear();
        if let Some(zero) = read(bytes, self.gamma, &mut self.read) {
            self.zero += zero;
            self.read.iter().for_each(|(bin, count)| self.bins[*bin] += count);
        } else if let Some(sketch) = Sketch::from_bytes(bytes) {
            self.others.merge(&sketch);
        }
    }

    /// All of them. Its ends are those of its first and its last bin.
    pub fn finish(self) -> Sketch {
        let config = config();
        let mut all = self.others;
        all.add_ms(0.0, self.zero);
        for (at, count) in self.bins.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            // The middle of a bin lies in it.
            all.add_ms(config.value((at as i64 + FIRST) as i32), count);
        }
        all
    }
}

/// Reads bins, and how many durations were too short for any. `None`: it is no sketch of ours, or has other bins.
fn read(bytes: &[u8], own: f64, bins: &mut Vec<(usize, u64)>) -> Option<u64> {
    let mut r = Reader(bytes);
    let (mut zero, mut mapped) = (0, false);
    while let Some(part) = r.byte() {
        match part {
            COUNT => drop(r.double()?),
            MIN | MAX | SUM => drop(r.take::<8>()?),
            ZERO => zero += whole(r.double()?)?,
            MAPPING => {
                // Sketches of another precision do not add up.
                let gamma = f64::from_le_bytes(r.take()?);
                r.take::<8>()?;
                mapped = gamma.to_bits() == own.to_bits();
            }
            BINS_BY_DISTANCE => {
                let mut at = 0i64;
                for _ in 0..r.number()? {
                    let distance = r.number()?;
                    at = at.checked_add((distance >> 1) as i64 ^ -((distance & 1) as i64))?;
                    let bin = usize::try_from(at.checked_sub(FIRST)?).ok().filter(|bin| *bin < BINS)?;
                    bins.push((bin, whole(r.double()?)?));
                }
            }
            _ => return None,
        }
    }
    mapped.then_some(zero)
}

/// A count, which is written as a floating-point number.
fn whole(number: f64) -> Option<u64> {
    // Up to 2⁵³ each is a number of its own.
    (0.0..=9_007_199_254_740_992.0).contains(&number).then_some(number as u64)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// Seven bits to a byte, the lowest first; the ninth has eight.
    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..=56).step_by(7) {
            let byte = self.byte()?;
            if byte < 0x80 || shift == 56 {
                return Some(value | u64::from(byte) << shift);
            }
            value |= u64::from(byte & 0x7f) << shift;
        }
        None
    }

    /// A floating-point number, turned so that small whole ones are short: seven bits to a byte, the highest first.
    fn double(&mut self) -> Option<f64> {
        let mut bits = 0;
        for shift in (1..=57).rev().step_by(7) {
            let byte = self.byte()?;
            if shift == 1 {
                bits |= u64::from(byte);
                break;
            }
            bits |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Some(f64::from_bits(bits.rotate_right(6).wrapping_add(1f64.to_bits())) - 1.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHARES: [f64; 7] = [0.001, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999];

    fn assert_same(sketches: &[Sketch]) {
        let (mut merged, mut slow) = (Merged::default(), Sketch::new());
        for sketch in sketches {
            merged.add(&sketch.to_bytes());
            slow.merge(sketch);
        }
        let merged = merged.finish();
        assert_eq!(merged.count(), slow.count());
        for share in SHARES {
            assert_eq!(merged.quantile_ms(share), slow.quantile_ms(share), "{share}");
        }
    }

    proptest! {
        #[test]
        fn they_are_what_they_are_one_by_one(
            all in prop::collection::vec(prop::collection::vec((0u64..100_000_000, 1u64..100_000), 0..40), 0..20),
        ) {
            let sketches: Vec<Sketch> = all
                .iter()
                .map(|durations| {
                    let mut sketch = Sketch::new();
                    durations.iter().for_each(|(micros, times)| sketch.add_many_us(*micros, *times));
                    sketch
                })
                .collect();
            assert_same(&sketches);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes, config().gamma, &mut Vec::new());
        }
    }

    #[test]
    fn our_own_take_the_short_way_and_bins_beyond_it_the_long_one() {
        let mut sketch = Sketch::new();
        for micros in [0, 1, 2, 1_000, 60_000_000, 86_400_000_000] {
            sketch.add_many_us(micros, 3);
        }
        let mut bins = Vec::new();
        assert_eq!(read(&sketch.to_bytes(), config().gamma, &mut bins), Some(3));
        assert_eq!(bins.iter().map(|(_, count)| count).sum::<u64>(), 15);
        let mut far = Sketch::new();
        far.add_ms(1e40, 2);
        assert_eq!(read(&far.to_bytes(), config().gamma, &mut Vec::new()), None);
        let mut merged = Merged::default();
        merged.add(&far.to_bytes());
        merged.add(&sketch.to_bytes());
        merged.add(b"nonsense");
        merged.add(&sketch.to_bytes()[..20]);
        assert_eq!(merged.finish().count(), 20);
    }
}
