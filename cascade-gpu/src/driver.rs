//! Which CUDA devices this process can use.
//!
//! Absence is a value with a reason ([`Absence`]), never a panic: most machines have no GPU, and the store works
//! without this tier.

use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use crate::raw::{Api, Attribute, Refusal, Unloadable};

/// The driver's library, by the name that the loader knows it by. The name without a version belongs to the
/// toolkit's stub on machines that compile CUDA, so it comes second.
const LIBRARIES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];

/// A CUDA driver that answers, with the devices that it shows this process (at least one).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Driver {
    /// Newest CUDA version that it supports, major and minor.
    pub cuda_version: (u32, u32),
    /// Devices in the driver's order, which `CUDA_VISIBLE_DEVICES` selects and renumbers.
    pub devices: Vec<Device>,
}

/// One CUDA device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// Number that CUDA calls it by in this process.
    pub ordinal: u32,
    /// Product name.
    pub name: String,
    /// Memory in all, without what the driver keeps.
    pub memory_bytes: u64,
    /// Compute capability, major and minor.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Whether host memory can be registered and read by kernels at its own address, as this tier needs.
    pub unified_addressing: bool,
    /// PCI address such as `0000:3b:00.0`, which stays the same under `CUDA_VISIBLE_DEVICES`.
    pub pci_bus_id: String,
    /// NUMA node that the device hangs on, where the kernel knows it.
    pub numa_node: Option<u32>,
}

/// Why there is no GPU tier in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Absence {
    /// The driver's library is not on this machine, or cannot be loaded.
    NoLibrary {
        /// What the loader said.
        reason: String,
    },
    /// A library of that name lacks a function that every driver since CUDA 4 has.
    NotADriver {
        /// The function.
        function: &'static str,
    },
    /// The driver runs and shows no device.
    NoDevice,
    /// The driver refused a call.
    Refused {
        /// The call.
        function: &'static str,
        /// CUDA's number for the error.
        code: u32,
        /// CUDA's name for the error, empty where the driver knows none.
        name: String,
    },
}

const NO_DEVICE: u32 = 100;

impl Absence {
    fn refused(api: &Api, Refusal { function, code }: Refusal) -> Self {
        match code {
            NO_DEVICE => Self::NoDevice,
            _ => Self::Refused { function, code, name: api.error_name(code) },
        }
    }

    /// What to do about it, where something can be done.
    #[must_use]
    pub const fn cure(&self) -> &'static str {
        match self {
            Self::NoLibrary { .. } => {
                "install the NVIDIA driver; in a container, start it with GPUs (--gpus, --nv)"
            }
            Self::NotADriver { .. } => {
                "remove the library from the loader's path, or put the driver's before it"
            }
            Self::NoDevice => "check CUDA_VISIBLE_DEVICES, and that the job asked for a GPU (srun --gpus)",
            Self::Refused { code: 34, .. } => {
                "the toolkit's stub was loaded; take its folder out of LD_LIBRARY_PATH"
            }
            Self::Refused { code: 802, .. } => "the fabric manager is not ready; start nvidia-fabricmanager",
            Self::Refused { code: 803 | 804, .. } => {
                "driver library and kernel module differ; restart the machine or mount the matching library"
            }
            Self::Refused { .. } => "see whether nvidia-smi works and what the kernel's log says",
        }
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no GPU tier: ")?;
        match self {
            Self::NoLibrary { reason } => write!(f, "the CUDA driver cannot be loaded ({reason})")?,
            Self::NotADriver { function } => write!(f, "the libcuda that was found has no {function}")?,
            Self::NoDevice => f.write_str("the CUDA driver shows no device")?,
            Self::Refused { function, code, name } => write!(f, "{function} failed with {code} {name}")?,
        }
        write!(f, "; {}", self.cure())
    }
}

impl Error for Absence {}

/// The devices of this process, asked once and remembered.
///
/// It initialises CUDA (`cuInit`) and makes no context. A CUDA that was initialised before `fork` is unusable in
/// the child, so this is for processes that use the GPU or only report, and no import or attach calls it.
///
/// ```
/// match cascade_gpu::driver::probe() {
///     Ok(driver) => println!("{} devices", driver.devices.len()),
///     Err(absence) => println!("{absence}"),
/// }
/// ```
///
/// # Errors
/// [`Absence`] with the reason and what to do. It does not change while the process lives.
pub fn probe() -> Result<&'static Driver, &'static Absence> {
    static FOUND: OnceLock<Result<Driver, Absence>> = OnceLock::new();
    FOUND.get_or_init(|| first(&LIBRARIES)).as_ref()
}

/// The same with the driver library at `library`, asked anew at each call.
///
/// # Errors
/// [`Absence`] with the reason.
pub fn probe_library(library: &Path) -> Result<Driver, Absence> {
    read(library.as_os_str())
}

/// The answer of the first library that can be loaded, else why the first cannot.
fn first(libraries: &[&str]) -> Result<Driver, Absence> {
    let mut missing = None;
    for library in libraries {
        match read(library.as_ref()) {
            Err(absence @ Absence::NoLibrary { .. }) => missing = missing.or(Some(absence)),
            answer => return answer,
        }
    }
    Err(missing.unwrap_or(Absence::NoDevice))
}

fn read(library: &OsStr) -> Result<Driver, Absence> {
    let api = Api::load(library).map_err(|unloadable| match unloadable {
        Unloadable::Library(reason) => Absence::NoLibrary { reason },
        Unloadable::Function(function) => Absence::NotADriver { function },
    })?;
    let driver = driver(&api).map_err(|refusal| Absence::refused(&api, refusal))?;
    if driver.devices.is_empty() { Err(Absence::NoDevice) } else { Ok(driver) }
}

fn driver(api: &Api) -> Result<Driver, Refusal> {
    api.initialise()?;
    let version = api.version()?;
    let devices = (0..api.device_count()?).map(|ordinal| device(api, ordinal)).collect::<Result<_, _>>()?;
    // CUDA writes 13.0 as 13000.
    Ok(Driver { cuda_version: (version / 1000, version % 1000 / 10), devices })
}

fn device(api: &Api, ordinal: u32) -> Result<Device, Refusal> {
    let handle = api.device(ordinal)?;
    let attribute = |attribute| api.attribute(attribute, handle);
    let pci_bus_id = api.pci_bus_id(handle)?.to_ascii_lowercase();
    Ok(Device {
        ordinal,
        name: api.name(handle)?,
        memory_bytes: api.memory_bytes(handle)?,
        compute_capability: (attribute(Attribute::CapabilityMajor)?, attribute(Attribute::CapabilityMinor)?),
        multiprocessors: attribute(Attribute::Multiprocessors)?,
        unified_addressing: attribute(Attribute::UnifiedAddressing)? != 0,
        numa_node: numa_node(Path::new("/sys/bus/pci/devices"), &pci_bus_id),
        pci_bus_id,
    })
}

/// The kernel writes -1 where it does not know, as in most virtual machines.
fn numa_node(pci_devices: &Path, pci_bus_id: &str) -> Option<u32> {
    std::fs::read_to_string(pci_devices.join(pci_bus_id).join("numa_node")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
