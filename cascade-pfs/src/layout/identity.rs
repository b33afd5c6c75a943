//! Who writes: the content of identity and claim files, and part of every name.

use std::fmt;
use std::str::FromStr;

use super::{Damage, Page, begin_page, check_page, end_page, get, get_u64, put, put_u64};

pub(super) const MAGIC: [u8; 8] = *b"CASCWRTR";
const HOST_BYTES: usize = 64;

/// A writer: 128 random bits, drawn each time a tier is opened, so that names of two writers never meet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriterId(pub [u8; 16]);

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for WriterId {
    type Err = Damage;

    /// Reads 32 lower-case hexadecimal digits: one writer has one spelling.
    fn from_str(text: &str) -> Result<Self, Damage> {
        let wrong = Damage::Field("writer");
        let canonical = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if text.len() != 32 || !text.bytes().all(canonical) {
            return Err(wrong);
        }
        u128::from_str_radix(text, 16).map(|bits| Self(bits.to_be_bytes())).map_err(|_| wrong)
    }
}

/// The process behind a writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The writer.
    pub writer: WriterId,
    /// Process id.
    pub pid: u64,
    /// Start time of the process, clock ticks since boot.
    pub started: u64,
    /// Inode of its pid namespace.
    pub pid_namespace: u64,
    /// Boot id of its node; zero where the system tells none.
    pub boot: [u8; 16],
    /// Name of its node, at most 64 bytes.
    pub host: String,
    /// Bytes of segment files that it may have; 0 where it did not say.
    pub capacity_bytes: u64,
}

impl Identity {
    /// The page of an identity file or a claim file.
    #[must_use]
    pub fn to_page(&self) -> Page {
        let mut page = begin_page(MAGIC);
        put(&mut page, 24, &self.writer.0);
        put_u64(&mut page, 40, self.pid);
        put_u64(&mut page, 48, self.started);
        put_u64(&mut page, 56, self.pid_namespace);
        put(&mut page, 64, &self.boot);
        let mut end = self.host.len().min(HOST_BYTES);
        while !self.host.is_char_boundary(end) {
            end -= 1;
        }
        put_u64(&mut page, 80, end as u64);
        put(&mut page, 88, &self.host.as_bytes()[..end]);
        put_u64(&mut page, 152, self.capacity_bytes);
        end_page(&mut page);
        page
    }

    /// Reads such a page.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        let page = check_page(bytes, MAGIC)?;
        let len = usize::try_from(get_u64(page, 80)).ok().filter(|len| *len <= HOST_BYTES);
        let host = len.and_then(|len| std::str::from_utf8(&page[88..88 + len]).ok());
        Ok(Self {
            writer: WriterId(get(page, 24)),
            pid: get_u64(page, 40),
            started: get_u64(page, 48),
            pid_namespace: get_u64(page, 56),
            boot: get(page, 64),
            host: host.ok_or(Damage::Field("host"))?.to_owned(),
            capacity_bytes: get_u64(page, 152),
        })
    }
}
