//! Which loaded models make room for another one: those whose last request is longest ago.

/// A loaded model, as far as its place is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loaded {
    /// What it takes.
    pub(super) bytes: u64,
    /// When it was asked for last; greater is later.
    pub(super) used_at: u64,
    /// Whether a request has it now.
    pub(super) is_busy: bool,
}

/// The positions of those models that must go so that `wanted_bytes` fit below `limit_bytes`; `None` when it cannot be done. Models that
/// answer a request now go last.
pub(super) fn leaving(models: &[Loaded], wanted_bytes: u64, limit_bytes: u64) -> Option<Vec<usize>> {
    if wanted_bytes > limit_bytes {
        return None;
    }
    let mut taken: u64 = models.iter().map(|model| model.bytes).sum();
    let mut order: Vec<usize> = (0..models.len()).collect();
    order.sort_by_key(|at| (models[*at].is_busy, models[*at].used_at));
    let mut leaving = Vec::new();
    for at in order {
        if taken.saturating_add(wanted_bytes) <= limit_bytes {
            break;
        }
        taken -= models[at].bytes;
        leaving.push(at);
    }
    Some(leaving)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_go_and_no_more_than_must() {
        let model = |bytes, used_at, is_busy| Loaded { bytes, used_at, is_busy };
        let models = [model(10, 3, false), model(10, 1, true), model(10, 2, false)];
        assert_eq!(leaving(&models, 10, 40), Some(vec![]));
        assert_eq!(leaving(&models, 10, 39), Some(vec![2]));
        assert_eq!(leaving(&models, 25, 40), Some(vec![2, 0]));
        assert_eq!(leaving(&models, 40, 40), Some(vec![2, 0, 1]));
        assert_eq!(leaving(&models, 41, 40), None);
        assert_eq!(leaving(&[], 0, 0), Some(vec![]));
    }
}
