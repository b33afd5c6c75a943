//! Settings of the tier in the memory of GPUs.

use cascade_core::Result;
use cascade_core::units::exact_size;

use super::values::Values;

/// How much of each device the tier may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuCapacity {
    /// So many bytes of each.
    Bytes(u64),
    /// Half of what is free when the store is opened.
    HalfOfFree,
}

/// Which devices the tier uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuDevices {
    /// Every device that this process sees.
    All,
    /// Those with these numbers, as CUDA counts them in this process.
    These(Vec<u32>),
    /// So many devices in host memory, for tests on machines without a GPU.
    Simulated(u32),
}

/// The tier in the memory of GPUs, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuConfig {
    /// Of each device.
    pub capacity: GpuCapacity,
    /// Which.
    pub devices: GpuDevices,
    /// Whether processes of a node read blocks from each other's device memory.
    pub is_shared: bool,
}

const WANTED: &str = "\"all\", numbers such as \"0\" or \"0,1\", or \"simulated\" (a device in host memory, for tests) is needed";

impl GpuConfig {
    /// What the settings say; `None` when `gpu_capacity` is `off` or not set.
    pub(super) fn read(values: &Values<'_>) -> Result<Option<Self>> {
        let capacity = match values.text("gpu_capacity") {
            None | Some("off") => {
                return match values.text("gpu_devices") {
                    Some(text) if values.text("gpu_capacity").is_none() => {
                        let why = "it says where blocks are kept, and gpu_capacity does not say how much";
                        Err(values.wrong("gpu_devices", text, why))
                    }
                    _ => Ok(None),
                };
            }
            Some("auto") => GpuCapacity::HalfOfFree,
            Some(_) => GpuCapacity::Bytes(values.size("gpu_capacity")?.unwrap_or(0)),
        };
        if let GpuCapacity::Bytes(0..1_048_576) = capacity {
            let text = values.text("gpu_capacity").unwrap_or("");
            return Err(values.wrong("gpu_capacity", text, "\"off\", \"auto\" or at least 1MiB is needed"));
        }
        let is_shared = match values.text("gpu_share") {
            None | Some("off") => false,
            Some("on") => true,
            Some(text) => return Err(values.wrong("gpu_share", text, "\"on\" or \"off\" is needed")),
        };
        Ok(Some(Self { capacity, devices: devices(values)?, is_shared }))
    }

    /// Name and value of the settings, as TOML shows them.
    pub(super) fn shown(&self) -> Vec<(&'static str, String)> {
        let capacity = match self.capacity {
            GpuCapacity::Bytes(bytes) => exact_size(bytes),
            GpuCapacity::HalfOfFree => "auto".to_owned(),
        };
        let devices = match &self.devices {
            GpuDevices::All => "all".to_owned(),
            GpuDevices::Simulated(1) => "simulated".to_owned(),
            GpuDevices::Simulated(count) => format!("simulated:{count}"),
            GpuDevices::These(all) => all.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        };
        let share = if self.is_shared { "on" } else { "off" };
        vec![
            ("gpu_capacity", format!("{capacity:?}")),
            ("gpu_devices", format!("{devices:?}")),
            ("gpu_share", format!("{share:?}")),
        ]
    }
}

fn devices(values: &Values<'_>) -> Result<GpuDevices> {
    let text = values.text("gpu_devices").unwrap_or("0");
    let wrong = || values.wrong("gpu_devices", text, WANTED);
    if text == "all" {
        return Ok(GpuDevices::All);
    }
    if let Some(count) = text.strip_prefix("simulated") {
        let count =
            if count.is_empty() { Some(1) } else { count.strip_prefix(':').and_then(|n| n.parse().ok()) };
        return count.filter(|count| (1..=16).contains(count)).map(GpuDevices::Simulated).ok_or_else(wrong);
    }
    let mut all = text
        .split(',')
        .map(|number| number.trim().parse::<u32>().map_err(|_| wrong()))
        .collect::<Result<Vec<u32>>>()?;
    all.sort_unstable();
    all.dedup();
    Ok(GpuDevices::These(all))
}
