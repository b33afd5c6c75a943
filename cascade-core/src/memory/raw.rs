//! The pieces themselves: pointers with a length, a space and what keeps them alive.

use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use super::Space;

/// A run of host or device memory that an operation reads or writes.
#[derive(Clone)]
pub struct Piece {
    ptr: NonNull<u8>,
    len: usize,
    space: Space,
    writable: bool,
    /// Keeps the memory alive while an operation holds the piece; `None` where the caller promised it.
    keep: Option<Arc<dyn Any + Send + Sync>>,
    /// Whether what is kept is also out of everybody's reach.
    private: bool,
}

// SAFETY: a piece is an address with a promise (its constructors') that the memory stays valid; it gives no access by itself.
unsafe impl Send for Piece {}
// SAFETY: as above; access goes through operations, which take the list by value.
unsafe impl Sync for Piece {}

impl Piece {
    /// Bytes to read from, kept alive by the piece.
    #[must_use]
    pub fn shared(bytes: Arc<[u8]>) -> Self {
        let ptr = NonNull::from(&*bytes).cast::<u8>();
        Self {
            ptr,
            len: bytes.len(),
            space: Space::Host,
            writable: false,
            keep: Some(Arc::new(bytes)),
            private: true,
        }
    }

    /// Host memory to read from.
    ///
    /// # Safety
    /// `ptr` must be valid for reads of `len` bytes, and nobody may write there, until the operation completes.
    #[must_use]
    pub unsafe fn host_read(ptr: *const u8, len: usize) -> Self {
        let ptr = NonNull::new(ptr.cast_mut()).unwrap_or(NonNull::dangling());
        Self { ptr, len, space: Space::Host, writable: false, keep: None, private: false }
    }

    /// Host memory to write to.
    ///
    /// # Safety
    /// `ptr` must be valid for writes of `len` bytes, and nobody else may touch it, until the operation completes.
    #[must_use]
    pub unsafe fn host_write(ptr: *mut u8, len: usize) -> Self {
        let ptr = NonNull::new(ptr).unwrap_or(NonNull::dangling());
        Self { ptr, len, space: Space::Host, writable: true, keep: None, private: false }
    }

    /// Memory of a device, readable and writable by that device's copy engines.
    ///
    /// # Safety
    /// `address` must be a device address of `device`, valid for `len` bytes until the operation completes.
    #[must_use]
    pub unsafe fn device(device: u32, address: NonNull<u8>, len: usize) -> Self {
        Self { ptr: address, len, space: Space::Device(device), writable: true, keep: None, private: false }
    }

    /// The same piece, which keeps `owner` alive, beside what it keeps alive already. Others may reach the memory through the
    /// owner, so that [`Piece::is_kept`] says what it said.
    #[must_use]
    pub fn kept_by(self, owner: Arc<dyn Any + Send + Sync>) -> Self {
        let keep: Arc<dyn Any + Send + Sync> = match &self.keep {
            Some(already) => Arc::new((Arc::clone(already), owner)),
            None => owner,
        };
        Self { keep: Some(keep), ..self }
    }

    /// `len` bytes of this piece from `offset` on, kept alive as the whole is; `None` beyond its end.
    #[must_use]
    pub fn part(&self, offset: usize, len: usize) -> Option<Self> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: `offset <= self.len`, so the address stays within, or one past, memory that the constructor vouched for.
        let ptr = unsafe { self.ptr.add(offset) };
        Some(Self { ptr, len, ..self.clone() })
    }

    /// First byte. For device memory not to be dereferenced by the CPU.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the piece holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the memory is.
    #[must_use]
    pub fn space(&self) -> Space {
        self.space
    }

    /// Whether the piece keeps its memory: then it stays as it is, out of everybody's reach, for as long as the piece is held,
    /// also after the operation was answered.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.private
    }

    /// What keeps the memory alive, without the piece; `None` where the caller promised it.
    #[must_use]
    pub fn into_owner(self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.keep
    }

    /// Whether operations may write here.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piece({:?}, {} B{})", self.space, self.len, if self.writable { ", writable" } else { "" })
    }
}

struct Cells(Box<[UnsafeCell<u8>]>);

// SAFETY: the cells are reached through pieces (one operation at a time, by their contract) or, when no piece is left, by the owner.
unsafe impl Sync for Cells {}

/// A buffer that operations may fill while its owner waits: the owner reads it only when no operation holds a piece of it.
#[derive(Clone)]
pub struct HostBuffer {
    cells: Arc<Cells>,
}

impl HostBuffer {
    /// A buffer of `len` zero bytes.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let bytes = Box::into_raw(vec![0u8; len].into_boxed_slice());
        // SAFETY: `UnsafeCell<u8>` has the layout of `u8`, so the box owns the same allocation under either type.
        let cells = unsafe { Box::from_raw(bytes as *mut [UnsafeCell<u8>]) };
        Self { cells: Arc::new(Cells(cells)) }
    }

    /// A writable piece over the whole buffer.
    #[must_use]
    pub fn piece(&self) -> Piece {
        let ptr = NonNull::from(&*self.cells.0).cast::<u8>();
        let keep = Arc::clone(&self.cells) as Arc<dyn Any + Send + Sync>;
        Piece {
            ptr,
            len: self.cells.0.len(),
            space: Space::Host,
            writable: true,
            keep: Some(keep),
            private: true,
        }
    }

    /// The bytes, when no piece and no clone of this buffer is left; `None` while one is.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        let cells = Arc::get_mut(&mut self.cells)?;
        let len = cells.0.len();
        let first = cells.0.as_mut_ptr().cast::<u8>();
        // SAFETY: `get_mut` proves that no piece is left, `UnsafeCell<u8>` has the layout of `u8`, and all cells are initialised.
        Some(unsafe { std::slice::from_raw_parts_mut(first, len) })
    }
}

impl fmt::Debug for HostBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostBuffer({} B)", self.cells.0.len())
    }
}
