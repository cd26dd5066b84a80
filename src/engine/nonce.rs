//! What tells a container that we made from every copy of its labels.

use std::{fmt, io};

use rustix::{io::retry_on_intr, rand::GetRandomFlags};

/// How many random bytes it has: nobody guesses one, and no two are the same.
const BYTES: usize = 16;

/// A number that is used once: the value of a label of one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nonce(String);

impl Nonce {
    /// A new one, of the system's random source.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn fresh() -> io::Result<Self> {
        let mut bytes = [0; BYTES];
        let got = retry_on_intr(|| rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty()))?;
        if got != BYTES {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{got} of {BYTES} bytes")));
        }
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// One for an engine in memory, where everything has to be the same each time.
    pub(super) fn of_number(number: u64) -> Self {
        Self(format!("{number:032x}"))
    }

    /// What a label says; none, if that is not what we write.
    pub(super) fn parse(label: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (label.len() == 2 * BYTES && label.bytes().all(is_digit)).then(|| Self(label.to_owned()))
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_another_one_and_reads_back() {
        let (one, other) = (Nonce::fresh().unwrap(), Nonce::fresh().unwrap());
        assert_ne!(one, other);
        assert_eq!(Nonce::parse(&one.to_string()), Some(one));
        for label in ["", "1", "0123456789ABCDEF0123456789ABCDEF", "é23456789abcdef0123456789abcdef"] {
            assert_eq!(Nonce::parse(label), None, "{label}");
        }
    }
}
