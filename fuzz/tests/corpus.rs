//! The corpus of each target, and changes of it at random: what a fuzzer has found once stays found.

use std::{fs, path::Path};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use sameport_fuzz::{TARGETS, Target};

/// Inputs that are changed, for each target; `SAMEPORT_FUZZ_CASES` is another number.
const CASES: u32 = 1000;

/// What is done to an input.
#[derive(Clone, Debug)]
enum Edit {
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Flip(Index, u8),
    Repeat(Index, usize, usize),
    /// A part of another input.
    Splice(Index, Index, Index, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<Index>(), 1..64_usize).prop_map(|(at, length)| Edit::Remove(at, length)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..8))
            .prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (any::<Index>(), 1..=255_u8).prop_map(|(at, bits)| Edit::Flip(at, bits)),
        (any::<Index>(), 1..16_usize, 1..200_usize).prop_map(|(at, length, n)| Edit::Repeat(at, length, n)),
        (any::<Index>(), any::<Index>(), any::<Index>(), 1..64_usize)
            .prop_map(|(at, other, from, length)| Edit::Splice(at, other, from, length)),
    ]
}

fn apply(edit: &Edit, data: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let place = |at: &Index| at.index(data.len() + 1);
    match edit {
        Edit::Remove(at, length) => {
            let at = place(at);
            data.drain(at..(at + length).min(data.len()));
        }
        Edit::Insert(at, bytes) => {
            let at = place(at);
            data.splice(at..at, bytes.iter().copied());
        }
        Edit::Flip(at, bits) => {
            let at = place(at);
            if let Some(byte) = data.get_mut(at) {
                *byte ^= bits;
            }
        }
        Edit::Repeat(at, length, times) => {
            let at = place(at);
            let part = data[at..(at + length).min(data.len())].repeat(*times);
            data.splice(at..at, part);
        }
        Edit::Splice(at, other, from, length) => {
            let at = place(at);
            let other = &corpus[other.index(corpus.len())];
            let from = from.index(other.len() + 1);
            data.splice(at..at, other[from..(from + length).min(other.len())].iter().copied());
        }
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn try_all(name: &str, target: Target) {
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    corpus.iter().for_each(|data| target(data));
    let cases = std::env::var("SAMEPORT_FUZZ_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let inputs = (any::<Index>(), prop::collection::vec(edit(), 1..6));
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(&inputs, |(which, edits)| {
        let mut data = corpus[which.index(corpus.len())].clone();
        edits.iter().for_each(|edit| apply(edit, &mut data, &corpus));
        target(&data);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{name}: {error}");
    }
}

macro_rules! tests {
    ($($name:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { try_all(stringify!($name), sameport_fuzz::$name); })*
    };
}

tests! { compose_file control_protocol interpolation labels log_lines state_file }

#[test]
fn each_target_is_tested() {
    assert_eq!(TARGETS.map(|(name, _)| name).as_slice(), TESTED);
}
