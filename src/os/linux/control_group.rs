//! The folders of the control groups that the process is in.

use std::path::{Component, Path, PathBuf};

/// Which files a folder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// The folders of the groups that this controller bounds the process by, each followed by
/// those that it lies in. `groups` is the text of `/proc/self/cgroup`, `root` the folder
/// that all hierarchies are mounted in.
pub(super) fn folders(groups: &str, controller: &str, root: &Path) -> Vec<(Version, PathBuf)> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        // `0::/path`, or before version 2 `4:cpu,cpuacct:/path`.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (version, hierarchy) = match controllers {
            "" => (Version::Two, root.to_path_buf()),
            names if names.split(',').any(|name| name == controller) => {
                (Version::One, root.join(controller))
            }
            _ => continue,
        };
        // Within a container the path may be that outside: then its own group is the root.
        let upwards = upwards(&hierarchy, path);
        folders.extend(upwards.into_iter().map(|folder| (version, folder)));
    }
    folders
}

/// The folder of a group, and those of all that it lies in.
fn upwards(hierarchy: &Path, path: &str) -> Vec<PathBuf> {
    // With `..` where a namespace hides the outer part.
    let relative = Path::new(path.trim_start_matches('/'));
    let is_plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let relative = if is_plain { relative } else { Path::new("") };
    relative
        .ancestors()
        .map(|part| hierarchy.join(part))
        .collect()
}
