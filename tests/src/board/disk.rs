//! The board's disk: a file behind an NBD server with what every real disk has, a cache that loses power.
//!
//! QEMU killed is no power cut: what the guest wrote is in the host's cache and stays. So writes are held here until
//! the guest flushes them, and a cut keeps a random half of the sectors that were not flushed, in no order.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};

use super::dice::Dice;

const SECTOR: u64 = 512;
/// Sectors that wait at most, 32 MiB as in a good disk; a full cache is written out.
const CACHE: usize = 65536;
/// Longest request that QEMU sends.
const MAX_REQUEST: u32 = 32 << 20;

/// The NBD protocol's numbers, from its specification (doc/proto.md of the reference implementation).
mod nbd {
    pub(super) const MAGIC: &[u8; 16] = b"NBDMAGICIHAVEOPT";
    pub(super) const OPTION: u64 = u64::from_be_bytes(*b"IHAVEOPT");
    pub(super) const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
    pub(super) const REQUEST: u32 = 0x2560_9513;
    pub(super) const REPLY: u32 = 0x6744_6698;
    pub(super) const FIXED_NEWSTYLE_NO_ZEROES: u16 = 3;
    pub(super) const OPT_GO: u32 = 7;
    pub(super) const REP_ACK: u32 = 1;
    pub(super) const REP_INFO: u32 = 3;
    pub(super) const REP_UNSUPPORTED: u32 = 0x8000_0001;
    /// Has flags, flush, FUA.
    pub(super) const FLAGS: u16 = 0b1101;
    pub(super) const FUA: u16 = 1;
    pub(super) const READ: u16 = 0;
    pub(super) const WRITE: u16 = 1;
    pub(super) const DISCONNECT: u16 = 2;
    pub(super) const FLUSH: u16 = 3;
    pub(super) const EINVAL: u32 = 22;
}

#[derive(Debug)]
pub struct Disk {
    file: File,
    size: u64,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    sectors: BTreeMap<u64, [u8; SECTOR as usize]>,
    written: u64,
}

impl Disk {
    /// `image` copied to `path` and made `size` bytes long.
    pub fn of(image: &Path, path: &Path, size: u64) -> Result<Arc<Self>> {
        // Holes stay holes.
        let status = std::process::Command::new("cp").arg("--sparse=always").arg(image).arg(path).status()?;
        ensure!(status.success(), "cp of {}: {status}", image.display());
        let file = OpenOptions::new().read(true).write(true).open(path).context("the disk's file")?;
        file.set_len(size)?;
        Ok(Arc::new(Self { file, size, cache: Mutex::default() }))
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // A panic elsewhere leaves whole sectors.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that were written since the disk was made.
    pub fn written(&self) -> u64 {
        self.cache().written
    }

    /// Of each sector that was not flushed, the dice say whether it got there. Returns how many did not.
    pub fn cut_power(&self, dice: &mut Dice) -> Result<usize> {
        let sectors = std::mem::take(&mut self.cache().sectors);
        let mut lost = 0;
        for (sector, data) in sectors {
            if dice.below(2) == 0 {
                self.file.write_all_at(&data, sector * SECTOR)?;
            } else {
                lost += 1;
            }
        }
        Ok(lost)
    }

    /// What a disk does that is switched off in order.
    pub fn flush(&self) -> io::Result<()> {
        self.flush_held(&mut self.cache())
    }

    fn flush_held(&self, cache: &mut Cache) -> io::Result<()> {
        for (sector, data) in std::mem::take(&mut cache.sectors) {
            self.file.write_all_at(&data, sector * SECTOR)?;
        }
        Ok(())
    }

    fn read(&self, at: u64, data: &mut [u8]) -> io::Result<()> {
        let cache = self.cache();
        self.file.read_exact_at(data, at)?;
        let first = at / SECTOR;
        for (sector, held) in cache.sectors.range(first..first + data.len() as u64 / SECTOR) {
            let from = ((sector - first) * SECTOR) as usize;
            data[from..from + SECTOR as usize].copy_from_slice(held);
        }
        Ok(())
    }

    fn write(&self, at: u64, data: &[u8], through: bool) -> io::Result<()> {
        let mut cache = self.cache();
        cache.written += data.len() as u64;
        for (index, bytes) in data.chunks_exact(SECTOR as usize).enumerate() {
            let sector = at / SECTOR + index as u64;
            if through {
                cache.sectors.remove(&sector);
            } else {
                let mut held = [0; SECTOR as usize];
                held.copy_from_slice(bytes);
                cache.sectors.insert(sector, held);
            }
        }
        if through {
            self.file.write_all_at(data, at)?;
        } else if cache.sectors.len() > CACHE {
            self.flush_held(&mut cache)?;
        }
        Ok(())
    }

    /// Serves one machine's run: from its connection until it is gone.
    pub fn serve(self: &Arc<Self>, socket: &Path) -> Result<std::thread::JoinHandle<()>> {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).with_context(|| socket.display().to_string())?;
        let disk = Arc::clone(self);
        Ok(std::thread::spawn(move || {
            let Ok((stream, _)) = listener.accept() else { return };
            // A machine that is killed hangs up in the middle of a word.
            let _ = disk.converse(stream);
        }))
    }

    fn converse(&self, mut stream: UnixStream) -> Result<()> {
        self.greet(&mut stream)?;
        let mut data = Vec::new();
        loop {
            let mut head = [0; 28];
            stream.read_exact(&mut head)?;
            ensure!(be(&head, 0..4) == u64::from(nbd::REQUEST), "not a request");
            let (flags, kind) = (be(&head, 4..6) as u16, be(&head, 6..8) as u16);
            let (at, length) = (be(&head, 16..24), be(&head, 24..28) as u32);
            let inside = length <= MAX_REQUEST && at.saturating_add(length.into()) <= self.size;
            let mut error = 0;
            data.clear();
            match kind {
                nbd::READ if inside => {
                    data.resize(length as usize, 0);
                    self.read(at, &mut data)?;
                }
                nbd::WRITE if inside => {
                    data.resize(length as usize, 0);
                    stream.read_exact(&mut data)?;
                    self.write(at, &data, flags & nbd::FUA != 0)?;
                    data.clear();
                }
                nbd::FLUSH => self.flush()?,
                nbd::DISCONNECT => return Ok(()),
                nbd::WRITE => bail!("a write beyond the disk"),
                _ => error = nbd::EINVAL,
            }
            let mut reply = Vec::with_capacity(16 + data.len());
            reply.extend(nbd::REPLY.to_be_bytes());
            reply.extend(error.to_be_bytes());
            reply.extend(&head[8..16]);
            reply.extend(&data);
            stream.write_all(&reply)?;
        }
    }

    /// The handshake; only the option that every QEMU ends with is known.
    fn greet(&self, stream: &mut UnixStream) -> Result<()> {
        stream.write_all(nbd::MAGIC)?;
        stream.write_all(&nbd::FIXED_NEWSTYLE_NO_ZEROES.to_be_bytes())?;
        stream.read_exact(&mut [0; 4])?;
        loop {
            let mut head = [0; 16];
            stream.read_exact(&mut head)?;
            ensure!(be(&head, 0..8) == nbd::OPTION, "not an option");
            let (option, length) = (be(&head, 8..12) as u32, be(&head, 12..16));
            ensure!(length <= 4096, "a long option");
            stream.read_exact(&mut vec![0; length as usize])?;
            let mut reply = |kind: u32, data: &[u8]| {
                let head = [&nbd::OPTION_REPLY.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes()];
                stream.write_all(&[&head.concat()[..], &(data.len() as u32).to_be_bytes(), data].concat())
            };
            if option == nbd::OPT_GO {
                let export = [&[0, 0][..], &self.size.to_be_bytes(), &nbd::FLAGS.to_be_bytes()].concat();
                reply(nbd::REP_INFO, &export)?;
                reply(nbd::REP_ACK, &[])?;
                return Ok(());
            }
            reply(nbd::REP_UNSUPPORTED, &[])?;
        }
    }
}

fn be(bytes: &[u8], range: std::ops::Range<usize>) -> u64 {
    bytes[range].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (tempfile::TempDir, Arc<Disk>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("image"), vec![7; 4096]).unwrap();
        let disk = Disk::of(&folder.path().join("image"), &folder.path().join("disk"), 1 << 20).unwrap();
        (folder, disk)
    }

    fn sector(disk: &Disk, at: u64) -> u8 {
        let mut data = [0; SECTOR as usize];
        disk.read(at * SECTOR, &mut data).unwrap();
        assert!(data.iter().all(|byte| *byte == data[0]), "a sector is never torn");
        data[0]
    }

    #[test]
    fn what_was_flushed_outlives_a_cut_and_of_the_rest_some_is_lost() {
        let (_folder, disk) = disk();
        disk.write(0, &[1; 64 * SECTOR as usize], false).unwrap();
        disk.flush().unwrap();
        disk.write(0, &[2; 64 * SECTOR as usize], false).unwrap();
        disk.write(64 * SECTOR, &[3; SECTOR as usize], true).unwrap();
        assert_eq!(sector(&disk, 5), 2, "a cached sector is read back");
        let lost = disk.cut_power(&mut Dice::new(1)).unwrap();
        assert!((1..64).contains(&lost), "{lost}");
        let after: Vec<u8> = (0..64).map(|at| sector(&disk, at)).collect();
        assert!(after.contains(&1) && after.contains(&2) && after.iter().all(|byte| [1, 2].contains(byte)));
        assert_eq!(sector(&disk, 64), 3, "a write that must get there at once did");
        assert_eq!(disk.written(), 129 * SECTOR);
    }
}
