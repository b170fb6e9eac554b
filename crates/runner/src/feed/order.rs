//! Which entries of a plan a host gets in an epoch, and in which order.

use super::Shard;

/// The items of one host of several: every `hosts`-th, so that each gets as many as the others, or one more.
pub fn shard<T>(items: Vec<T>, host: usize, hosts: usize) -> Vec<T> {
    let hosts = hosts.max(1);
    items.into_iter().enumerate().filter(|(index, _)| index % hosts == host).map(|(_, item)| item).collect()
}

/// The entries of an epoch. All hosts compute the same order before each takes its part, so that a shuffled part changes
/// from epoch to epoch and the parts still cover everything once.
pub(super) fn epoch(entries: usize, epoch: u64, seed: Option<i64>, part: Option<Shard>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..entries).collect();
    if let Some(seed) = seed {
        let mut random = SplitMix(u64::from_ne_bytes(seed.to_ne_bytes()));
        // Epochs that lie next to each other must not begin alike.
        random.0 ^= SplitMix(epoch).next();
        for left in (1..order.len()).rev() {
            order.swap(left, random.below(left + 1));
        }
    }
    match part {
        Some(Shard { host, hosts }) => shard(order, host, hosts),
        None => order,
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same order for the same seed in every release.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; the bias of the multiplication is far below what an order could show.
    fn below(&mut self, bound: usize) -> usize {
        let product = u128::from(self.next()) * bound as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once_whatever_the_number_of_hosts() {
        for (count, hosts) in [(0, 1), (1, 1), (7, 1), (7, 2), (8, 4), (3, 5), (1000, 16)] {
            let parts: Vec<Vec<usize>> =
                (0..hosts).map(|host| shard((0..count).collect(), host, hosts)).collect();
            let (most, least) = (parts.iter().map(Vec::len).max(), parts.iter().map(Vec::len).min());
            assert!(most.unwrap_or(0) - least.unwrap_or(0) <= 1, "{count} over {hosts}");
            let mut all: Vec<usize> = parts.concat();
            all.sort_unstable();
            assert_eq!(all, (0..count).collect::<Vec<_>>(), "{count} over {hosts}");
        }
    }

    #[test]
    fn a_seed_gives_each_epoch_an_order_of_its_own_and_always_the_same() {
        let orders: Vec<Vec<usize>> = (0..4).map(|number| epoch(100, number, Some(-7), None)).collect();
        for (number, order) in orders.iter().enumerate() {
            assert_eq!(*order, epoch(100, number as u64, Some(-7), None));
            assert!(orders[..number].iter().all(|earlier| earlier != order));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        }
        assert_ne!(orders[0], epoch(100, 0, Some(8), None));
        assert_eq!(epoch(4, 9, None, None), [0, 1, 2, 3]);
    }

    #[test]
    fn shuffled_parts_still_cover_everything_once() {
        for number in 0..3 {
            let part = |host| epoch(11, number, Some(5), Some(Shard { host, hosts: 3 }));
            let mut all = [part(0), part(1), part(2)].concat();
            all.sort_unstable();
            assert_eq!(all, (0..11).collect::<Vec<_>>());
        }
    }
}
