//! The few functions of the CUDA driver that the probe calls, found at run time. All `unsafe` of this crate.
//!
//! Signatures are those of CUDA's `cuda.h`. They have not changed since CUDA 4, the `_v2` names included, which
//! is why a call through them is sound with any driver that has the name.

use std::error::Error;
use std::ffi::{CStr, OsStr, c_char, c_int, c_uint};
use std::mem::ManuallyDrop;
use std::ptr;

use libloading::Library;

/// Why no library could be used.
pub(crate) enum Unloadable {
    /// The loader's reason.
    Library(String),
    /// The function that the library lacks.
    Function(&'static str),
}

/// A call that the driver refused, with CUDA's number for the error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    pub(crate) function: &'static str,
    pub(crate) code: u32,
}

/// What `cuDeviceGetAttribute` is asked for, with the numbers of `CUdevice_attribute`.
#[derive(Clone, Copy)]
pub(crate) enum Attribute {
    Multiprocessors = 16,
    UnifiedAddressing = 41,
    CapabilityMajor = 75,
    CapabilityMinor = 76,
}

/// A device as the driver names it. Only [`Api::device`] makes one.
#[derive(Clone, Copy)]
pub(crate) struct Handle(c_int);

/// `CUresult`. Zero is success.
type Status = c_uint;

/// Longest name that is asked for. CUDA's own limit for device names is 256.
const NAME_BYTES: usize = 256;

/// Functions of a loaded driver. They stay valid for ever, because the library is never unloaded: a driver
/// starts threads of its own, which would run in memory that is gone.
pub(crate) struct Api {
    init: unsafe extern "C" fn(c_uint) -> Status,
    driver_get_version: unsafe extern "C" fn(*mut c_int) -> Status,
    device_get_count: unsafe extern "C" fn(*mut c_int) -> Status,
    device_get: unsafe extern "C" fn(*mut c_int, c_int) -> Status,
    device_get_name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> Status,
    device_total_mem: unsafe extern "C" fn(*mut usize, c_int) -> Status,
    device_get_attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> Status,
    device_get_pci_bus_id: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> Status,
    get_error_name: unsafe extern "C" fn(Status, *mut *const c_char) -> Status,
}

impl Api {
    /// Loads the driver `library`, a path or a name that the loader searches for.
    pub(crate) fn load(library: &OsStr) -> Result<Self, Unloadable> {
        // SAFETY: loading runs the library's initialisers. By the names we ask for, it is the CUDA driver, whose
        // initialisers have no requirements; a caller who gives a path vouches for that file as for its own code.
        let library =
            unsafe { Library::new(library) }.map_err(|error| Unloadable::Library(reason(&error)))?;
        let library = ManuallyDrop::new(library);
        Ok(Self {
            init: function(&library, "cuInit")?,
            driver_get_version: function(&library, "cuDriverGetVersion")?,
            device_get_count: function(&library, "cuDeviceGetCount")?,
            device_get: function(&library, "cuDeviceGet")?,
            device_get_name: function(&library, "cuDeviceGetName")?,
            device_total_mem: function(&library, "cuDeviceTotalMem_v2")?,
            device_get_attribute: function(&library, "cuDeviceGetAttribute")?,
            device_get_pci_bus_id: function(&library, "cuDeviceGetPCIBusId")?,
            get_error_name: function(&library, "cuGetErrorName")?,
        })
    }

    pub(crate) fn initialise(&self) -> Result<(), Refusal> {
        // SAFETY: signature as in cuda.h; the flags must be 0; the driver allows repeated and concurrent calls.
        succeeded("cuInit", unsafe { (self.init)(0) })
    }

    /// Newest CUDA version of the driver, 1000 x major + 10 x minor.
    pub(crate) fn version(&self) -> Result<u32, Refusal> {
        // SAFETY: signature as in cuda.h; `number` gives a pointer that is valid for one int.
        number("cuDriverGetVersion", |out| unsafe { (self.driver_get_version)(out) })
    }

    pub(crate) fn device_count(&self) -> Result<u32, Refusal> {
        // SAFETY: as in `version`.
        number("cuDeviceGetCount", |out| unsafe { (self.device_get_count)(out) })
    }

    pub(crate) fn device(&self, ordinal: u32) -> Result<Handle, Refusal> {
        let mut device = 0;
        // An ordinal beyond any int is beyond any device too, and the driver says so.
        let ordinal = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        // SAFETY: signature as in cuda.h; `device` outlives the call; a wrong ordinal is an error, not undefined.
        succeeded("cuDeviceGet", unsafe { (self.device_get)(&raw mut device, ordinal) })?;
        Ok(Handle(device))
    }

    pub(crate) fn memory_bytes(&self, Handle(device): Handle) -> Result<u64, Refusal> {
        let mut bytes = 0usize;
        // SAFETY: signature as in cuda.h; `bytes` outlives the call; the handle came from `cuDeviceGet`.
        succeeded("cuDeviceTotalMem_v2", unsafe { (self.device_total_mem)(&raw mut bytes, device) })?;
        Ok(bytes as u64)
    }

    pub(crate) fn attribute(&self, attribute: Attribute, Handle(device): Handle) -> Result<u32, Refusal> {
        let attribute = attribute as c_int;
        // SAFETY: as in `version`; the handle came from `cuDeviceGet`; an unknown attribute is an error.
        number("cuDeviceGetAttribute", |out| unsafe { (self.device_get_attribute)(out, attribute, device) })
    }

    pub(crate) fn name(&self, Handle(device): Handle) -> Result<String, Refusal> {
        // SAFETY: signature as in cuda.h; `text` gives a buffer and its true length; the handle is valid.
        text("cuDeviceGetName", |out, length| unsafe { (self.device_get_name)(out, length, device) })
    }

    pub(crate) fn pci_bus_id(&self, Handle(device): Handle) -> Result<String, Refusal> {
        // SAFETY: as in `name`.
        text("cuDeviceGetPCIBusId", |out, length| unsafe {
            (self.device_get_pci_bus_id)(out, length, device)
        })
    }

    /// CUDA's name for an error, empty where the driver knows none.
    pub(crate) fn error_name(&self, code: u32) -> String {
        let mut name = ptr::null();
        // SAFETY: signature as in cuda.h; `name` outlives the call; any number may be asked for.
        let status = unsafe { (self.get_error_name)(code, &raw mut name) };
        if status != 0 || name.is_null() {
            return String::new();
        }
        // SAFETY: on success the driver gave a pointer to one of its own constant, terminated strings, and the
        // driver is never unloaded.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }
}

/// The loader's own words, which name the file; the error itself only says that loading failed.
fn reason(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

fn function<F: Copy>(library: &Library, name: &'static str) -> Result<F, Unloadable> {
    // SAFETY: `F` is the type of the field of `Api` that the result goes to, the function's signature in cuda.h.
    // The copy outlives the symbol because the library is never unloaded.
    unsafe { library.get::<F>(name) }.map(|symbol| *symbol).map_err(|_| Unloadable::Function(name))
}

const fn succeeded(function: &'static str, status: Status) -> Result<(), Refusal> {
    if status == 0 { Ok(()) } else { Err(Refusal { function, code: status }) }
}

/// Calls with a place for one int. CUDA has no negative counts, versions or attributes; one would read as 0.
fn number(function: &'static str, call: impl FnOnce(*mut c_int) -> Status) -> Result<u32, Refusal> {
    let mut value = 0;
    succeeded(function, call(&raw mut value))?;
    Ok(u32::try_from(value).unwrap_or(0))
}

/// Calls with a place for a text and its length.
fn text(function: &'static str, call: impl FnOnce(*mut c_char, c_int) -> Status) -> Result<String, Refusal> {
    let mut buffer = [0u8; NAME_BYTES];
    succeeded(function, call(buffer.as_mut_ptr().cast(), NAME_BYTES as c_int))?;
    // A driver that fills the buffer to the end leaves no terminator: then all of it is the text.
    let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
    Ok(String::from_utf8_lossy(&buffer[..end]).into_owned())
}
