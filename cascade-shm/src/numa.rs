//! The machine's memory nodes: pages are touched by threads that run where the pages lie.

mod raw;

use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// A node with memory that this process may use, and the cores of it that it may run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    number: u32,
    cores: Vec<usize>,
}

/// The nodes that pages can be spread over; empty when there is but one, or the system does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes(Vec<Node>);

impl Nodes {
    /// Those of this machine.
    #[must_use]
    pub fn of_machine() -> Self {
        let may_use = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("Mems_allowed_list:"))?;
            list(line.trim())
        });
        let may_run = sched_getaffinity(Pid::from_raw(0)).ok();
        let may_run = |core: usize| may_run.is_none_or(|cores| cores.is_set(core).unwrap_or(false));
        Self::read(Path::new("/sys/devices/system/node"), may_use.as_deref(), &may_run)
    }

    fn read(root: &Path, may_use: Option<&[usize]>, may_run: &dyn Fn(usize) -> bool) -> Self {
        let read = |name: &str| list(std::fs::read_to_string(root.join(name)).ok()?.trim());
        let with_memory = read("has_memory").or_else(|| read("has_normal_memory")).unwrap_or_default();
        let node = |number: usize| {
            let cores = read(&format!("node{number}/cpulist")).unwrap_or_default();
            let cores = cores.into_iter().filter(|core| may_run(*core)).collect();
            Some(Node { number: u32::try_from(number).ok()?, cores })
        };
        let may_use = |number: &usize| may_use.is_none_or(|allowed| allowed.contains(number));
        let nodes: Vec<Node> = with_memory.into_iter().filter(may_use).filter_map(node).collect();
        Self(if nodes.len() > 1 { nodes } else { Vec::new() })
    }

    /// How many there are; 1 when there is nothing to choose.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len().max(1)
    }

    /// Lets this thread run on the node with this index, and take its pages from there. What the system refuses is left as it
    /// is: pages then come from elsewhere.
    pub fn bind(&self, index: usize) {
        let Some(node) = self.0.get(index) else { return };
        let mut set = CpuSet::new();
        let added = node.cores.iter().filter(|core| set.set(**core).is_ok()).count();
        if added > 0 {
            let _ = sched_setaffinity(Pid::from_raw(0), &set);
        }
        let _ = raw::prefer(node.number);
    }
}

/// Numbers as the kernel lists them: `0-3,8`.
fn list(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= 1 << 20 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{text}\n")).unwrap();
        }
        root
    }

    const TWO: [(&str, &str); 4] = [
        ("has_memory", "0-1,4"),
        ("node0/cpulist", "0-3,16"),
        ("node1/cpulist", "4-7"),
        // Memory without cores.
        ("node4/cpulist", ""),
    ];

    #[test]
    fn nodes_are_those_with_memory_that_may_be_used() {
        let root = machine(&TWO);
        let all = Nodes::read(root.path(), None, &|_| true);
        let node = |number, cores: &[usize]| Node { number, cores: cores.to_vec() };
        assert_eq!(all, Nodes(vec![node(0, &[0, 1, 2, 3, 16]), node(1, &[4, 5, 6, 7]), node(4, &[])]));
        let some = Nodes::read(root.path(), Some(&[0, 1]), &|core| core != 0 && core < 16);
        assert_eq!(some, Nodes(vec![node(0, &[1, 2, 3]), node(1, &[4, 5, 6, 7])]));
        assert_eq!((all.count(), some.count()), (3, 2));
    }

    #[test]
    fn one_node_is_none_to_choose_from() {
        let root = machine(&TWO);
        assert_eq!(Nodes::read(root.path(), Some(&[1]), &|_| true), Nodes::default());
        assert_eq!(Nodes::read(Path::new("/nonexistent"), None, &|_| true).count(), 1);
        assert_eq!(list("3-2x"), None);
        assert_eq!(list(""), Some(Vec::new()));
    }

    #[test]
    fn a_thread_can_be_bound_to_the_node_that_it_is_on() {
        std::thread::spawn(|| {
            let cores = sched_getaffinity(Pid::from_raw(0)).unwrap();
            let cores: Vec<usize> =
                (0..CpuSet::count()).filter(|core| cores.is_set(*core).unwrap()).collect();
            let nodes =
                Nodes(vec![Node { number: 0, cores: cores[..1].to_vec() }, Node { number: 1, cores }]);
            nodes.bind(0);
            let bound = sched_getaffinity(Pid::from_raw(0)).unwrap();
            assert_eq!((0..CpuSet::count()).filter(|core| bound.is_set(*core).unwrap()).count(), 1);
        })
        .join()
        .unwrap();
    }
}
