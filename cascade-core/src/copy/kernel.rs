//! The kernels and what this CPU has of them.

use std::fmt;

use crate::copy::op;

/// An implementation of the copy with digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// x86_64: AVX-512 and VPCLMULQDQ, 64 bytes at once.
    Avx512,
    /// x86_64: AVX2 and VPCLMULQDQ, 32 bytes at once.
    Avx2,
    /// x86_64: SSE4.1 and PCLMULQDQ, 16 bytes at once.
    Sse,
    /// aarch64: NEON and PMULL, 16 bytes at once.
    Pmull,
    /// Any CPU: tables, 8 bytes at once.
    Scalar,
}

impl Kernel {
    /// All kernels, the widest first.
    pub const ALL: [Kernel; 5] = [Self::Avx512, Self::Avx2, Self::Sse, Self::Pmull, Self::Scalar];

    /// Whether this CPU has what the kernel needs.
    pub fn is_supported(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("vpclmulqdq")
                    && std::arch::is_x86_feature_detected!("pclmulqdq")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                std::arch::is_x86_feature_detected!("avx2")
                    && std::arch::is_x86_feature_detected!("vpclmulqdq")
                    && std::arch::is_x86_feature_detected!("pclmulqdq")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Sse => {
                std::arch::is_x86_feature_detected!("sse4.1")
                    && std::arch::is_x86_feature_detected!("pclmulqdq")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Pmull => {
                std::arch::is_aarch64_feature_detected!("neon")
                    && std::arch::is_aarch64_feature_detected!("aes")
            }
            #[cfg_attr(target_arch = "x86_64", allow(unreachable_patterns))]
            _ => false,
        }
    }

    /// The kernels that this CPU can run, the widest first; never empty.
    pub fn available() -> impl Iterator<Item = Kernel> {
        Self::ALL.into_iter().filter(|kernel| kernel.is_supported())
    }

    /// The widest kernel of this CPU.
    pub fn widest() -> Kernel {
        Self::available().next().unwrap_or(Self::Scalar)
    }

    /// Name, as in `CASCADE_COPY_KERNEL`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Sse => "sse",
            Self::Pmull => "pmull",
            Self::Scalar => "scalar",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How the destination is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreKind {
    /// Past the caches. On CPUs without such stores for a kernel, as [`StoreKind::Plain`].
    Streaming,
    /// Through the caches.
    Plain,
}

impl StoreKind {
    /// The kernels' bit for it.
    pub(crate) const fn op(self) -> u8 {
        match self {
            Self::Streaming => op::STREAM,
            Self::Plain => op::PLAIN,
        }
    }

    /// Name, as in `CASCADE_COPY_KERNEL`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Plain => "plain",
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where a block goes; decides the kind of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a private buffer into shared memory: other processes read it, not this CPU.
    Put,
    /// From shared memory into a private buffer, which this CPU is about to read.
    Get,
}
