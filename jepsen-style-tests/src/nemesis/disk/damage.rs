use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One bit is another one.
    Flip,
    /// The end is missing.
    Truncate,
}

/// A damage that was done.
#[derive(Debug)]
pub(super) struct Damage {
    /// The file, as seen from the data folder.
    pub(super) file: PathBuf,
    /// What was done to it, for people.
    pub(super) what: String,
}

impl Damage {
    /// Damages one file in this folder: each folder in it is as likely as another, however many files are there. Those
    /// that lie in none of them have a name and hardly more, so they are rare. Where files are longer than what was
    /// written to them, the damage is within what was written.
    pub(super) fn inflict(folder: &Path, kind: Kind, random: &mut StdRng) -> io::Result<Self> {
        let mut files = by_folder(folder)?;
        if files.len() > 1 && !random.random_ratio(1, 20) {
            files.remove(folder);
        }
        let folders: Vec<&Vec<PathBuf>> = files.values().collect();
        let file = folders.choose(random).and_then(|files| files.choose(random));
        let Some(file) = file else {
            return Err(io::Error::other("there is nothing to damage"));
        };
        let mut bytes = fs::read(file)?;
        let written = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(1, |last| last + 1);
        let place = random.random_range(0..written);
        let what = match kind {
            Kind::Flip => {
                let bit = random.random_range(0..8);
                bytes[place] ^= 1 << bit;
                fs::write(file, &bytes)?;
                format!("bit {bit} of byte {place} flipped")
            }
            Kind::Truncate => {
                File::options().write(true).open(file)?.set_len(place as u64)?;
                format!("cut from {} bytes to {place}", bytes.len())
            }
        };
        let file = file.strip_prefix(folder).unwrap_or(file).to_owned();
        Ok(Self { file, what })
    }

    /// Whether somebody who read this knows which file it is, or at least which table: those are known by their folder.
    pub(super) fn is_named_in(&self, message: &str) -> bool {
        let name = self.file.file_name().and_then(|name| name.to_str());
        let folder = self.file.parent().and_then(|parent| parent.file_name()?.to_str());
        name.is_some_and(|name| message.contains(name))
            || folder.is_some_and(|folder| message.contains(&format!("/{folder}")))
    }
}

/// The files with something in them, by the folders they are in.
fn by_folder(folder: &Path) -> io::Result<BTreeMap<PathBuf, Vec<PathBuf>>> {
    let mut found: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let (path, kind, name) = {
                let entry = entry?;
                (entry.path(), entry.file_type()?, entry.file_name())
            };
            let name = name.to_string_lossy();
            // What was found damaged before, nobody reads any more.
            if name == "lost+found" || name.contains(".damaged-") {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if fs::metadata(&path)?.len() > 0 {
                found.entry(folder.clone()).or_default().push(path);
            }
        }
    }
    // The same seed finds the same file.
    found.values_mut().for_each(|files| files.sort());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::random::Seed;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [
            ("formed", vec![1; 20]),
            ("table.lock", vec![]),
            ("log/1.segment", [vec![1; 100], vec![0; 1000]].concat()),
            ("table/db", vec![1; 50]),
            ("table/conf", vec![1; 50]),
            ("table.damaged-1/db", vec![1; 50]),
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    #[test]
    fn a_flip_changes_one_bit_of_what_was_written() {
        let mut damaged = BTreeSet::new();
        for turn in 0..100 {
            let folder = folder();
            let random = &mut Seed(turn).stream("damage");
            let damage = Damage::inflict(folder.path(), Kind::Flip, random).unwrap();
            let bytes = fs::read(folder.path().join(&damage.file)).unwrap();
            let written = bytes.len().min(100);
            let flipped: u32 = bytes[..written].iter().map(|byte| (byte ^ 1).count_ones()).sum();
            assert_eq!(flipped, 1, "{damage:?}");
            assert!(bytes[written..].iter().all(|byte| *byte == 0), "{damage:?}");
            damaged.insert(damage.file.display().to_string());
        }
        let all = ["formed", "log/1.segment", "table/conf", "table/db"];
        assert_eq!(damaged, all.map(str::to_owned).into());
    }

    #[test]
    fn a_truncated_file_lacks_something_that_was_written() {
        for turn in 0..100 {
            let folder = folder();
            let random = &mut Seed(turn).stream("damage");
            let damage = Damage::inflict(folder.path(), Kind::Truncate, random).unwrap();
            let length = fs::metadata(folder.path().join(&damage.file)).unwrap().len();
            assert!(length < 100, "{damage:?}");
        }
    }

    #[test]
    fn a_message_names_a_file_by_its_name_or_its_folder() {
        let damage = Damage {
            file: "table/db".into(),
            what: String::new(),
        };
        assert!(damage.is_named_in("what was left is in /data/c1/table.damaged-1"));
        assert!(damage.is_named_in("cannot read /x/db"));
        assert!(!damage.is_named_in("something is wrong"));
    }
}
