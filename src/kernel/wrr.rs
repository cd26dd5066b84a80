//! From weights to a table of weighted round robin: whom new connections are for, in turn. Pure.

use super::raw::WRR_TABLE;

/// A list in which each endpoint is as often as its weight says, compared with the others, and as evenly apart as
/// can be (smooth weighted round robin). Weight 0 is never in it, any other at least once.
#[must_use]
pub fn wrr_table(weights: &[(u16, u32)]) -> Vec<u16> {
    let shares = shares(weights);
    let size: u64 = shares.iter().map(|(_, share)| share).sum();
    let mut credit: Vec<(u16, u64, i64)> =
        shares.into_iter().map(|(endpoint, share)| (endpoint, share, 0)).collect();
    let mut table = Vec::new();
    for _ in 0..size {
        for (_, share, credit) in &mut credit {
            *credit += i64::try_from(*share).unwrap_or(i64::MAX);
        }
        // The first among equals: `max_by_key` would take the last.
        let mut richest: Option<&mut (u16, u64, i64)> = None;
        for candidate in &mut credit {
            if richest.as_ref().is_none_or(|best| candidate.2 > best.2) {
                richest = Some(candidate);
            }
        }
        if let Some((endpoint, _, credit)) = richest {
            *credit -= i64::try_from(size).unwrap_or(i64::MAX);
            table.push(*endpoint);
        }
    }
    table
}

/// How many places each gets: its weight without what all have in common, or scaled down where that is too many.
fn shares(weights: &[(u16, u32)]) -> Vec<(u16, u64)> {
    let weights = weights.iter().filter(|(_, weight)| *weight > 0);
    let mut shares: Vec<(u16, u64)> =
        weights.map(|(endpoint, weight)| (*endpoint, u64::from(*weight))).collect();
    let common = shares.iter().fold(0, |common, (_, weight)| gcd(common, *weight)).max(1);
    let sum: u64 = shares.iter().map(|(_, weight)| weight / common).sum();
    let most = WRR_TABLE as u64;
    if sum <= most {
        shares.iter_mut().for_each(|(_, weight)| *weight /= common);
        return shares;
    }
    // Each has one place, and the rest is split by weight: rounding down never makes it too many.
    shares.truncate(WRR_TABLE);
    let rest = most - shares.len() as u64;
    let sum: u64 = shares.iter().map(|(_, weight)| weight).sum();
    shares.iter_mut().for_each(|(_, weight)| *weight = 1 + rest * *weight / sum);
    shares
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tables() {
        for (case, weights, expected) in [
            ("nobody", &[][..], &[][..]),
            ("weight 0 gets nothing", &[(1, 0), (2, 5)], &[2]),
            ("equal ones take turns", &[(1, 100), (2, 100), (3, 100)], &[1, 2, 3]),
            ("a heavier one comes oftener", &[(1, 300), (2, 100)], &[1, 1, 2, 1]),
            ("and not in a row", &[(1, 5), (2, 1), (3, 1)], &[1, 1, 2, 1, 3, 1, 1]),
        ] {
            assert_eq!(wrr_table(weights), expected, "{case}");
        }
    }

    proptest! {
        #[test]
        fn everybody_has_a_share_and_about_the_right_one(weights in prop::collection::vec(0_u32..1001, 1..300)) {
            let weights: Vec<_> = (0..).zip(weights).collect();
            let table = wrr_table(&weights);
            prop_assert!(table.len() <= WRR_TABLE);
            let sum: f64 = weights.iter().map(|(_, weight)| f64::from(*weight)).sum();
            for (endpoint, weight) in weights {
                let places = table.iter().filter(|e| **e == endpoint).count();
                prop_assert_eq!(places > 0, weight > 0);
                let wanted = f64::from(weight) / sum * table.len() as f64;
                // With so many replicas in the table each has a place more or less, or what rounding leaves.
                prop_assert!((places as f64 - wanted).abs() <= 1.5 + 0.3 * wanted, "{places} places, {wanted} wanted");
            }
        }
    }
}
