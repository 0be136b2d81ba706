//! Our own format of kept blocks, which overlays and caches stand on, after every power cut: it opens, and has all that
//! was synced.

use super::{power::OnDisk, *};
use crate::common::testing::{Memory, Random, layer, open};
use disk::Data;
use std::collections::HashMap;
use store::{Blocks, Header, Kind, State};

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 3000;

/// The first bytes of the sectors of a block, if the store has it.
fn sectors(store: &Blocks, block: u64) -> Option<Vec<u8>> {
    if store.map().run(block, 1).0 != State::Copied {
        return None;
    }
    let (leaf, _) = store.leaf(block);
    let bytes = store.bytes().read(store.place(leaf, block), BLOCK).unwrap().to_vec();
    Some(bytes.chunks(512).map(|sector| sector[0]).collect())
}

#[test]
fn kept_blocks_open_with_all_that_was_synced_whenever_the_power_goes() {
    let mut tried = 0;
    for seed in 1..5 {
        let memory = Memory::new(vec![0; 24 << 20]);
        let layer =
            layer::<CrashLab>(&["crashlab-states=12", &format!("crashlab-seed={seed}")], &memory).unwrap();
        let present = || {
            let exports = layer.exports(&Client::default()).wait().unwrap();
            let names = exports.iter().filter_map(|export| Moment::of_name(&export.name));
            names.map(|moment| moment.epoch()).max().unwrap()
        };
        let medium = Arc::new(OnDisk(open(&layer)));
        let header = Header::new(Kind::Overlay, BLOCK, BLOCKS * BLOCK).unwrap();
        let store = Blocks::create(medium, header).unwrap();
        store.sync().unwrap();
        let mut random = Random(seed);
        // What was synced up to an epoch, and in which order what was written.
        let mut synced: Vec<(u64, HashMap<u64, usize>)> = vec![(present(), HashMap::new())];
        let mut written: HashMap<u64, Vec<u8>> = HashMap::new();
        for _ in 0..60 {
            let block = random.below(40) * (BLOCKS / 40);
            let byte = 1 + random.below(255) as u8;
            let (leaf, index) = store.leaf(block);
            store.bytes().write(store.place(leaf, block), &Data::copy_from(&[byte; BLOCK as usize])).unwrap();
            if store.map().run(block, 1).0 == State::Base {
                leaf.change(index, index + 1, State::Base, State::Copied);
            }
            written.entry(block).or_default().push(byte);
            if random.below(6) == 0 {
                store.sync().unwrap();
                let all = written.iter().map(|(block, bytes)| (*block, bytes.len())).collect();
                synced.push((present(), all));
            }
        }
        let exports = layer.exports(&Client::default()).wait().unwrap();
        for name in exports.iter().map(|export| &export.name) {
            let Some(moment) = Moment::of_name(name) else { continue };
            let Some((_, sure)) = synced.iter().rfind(|(epoch, _)| *epoch <= moment.epoch()) else {
                continue;
            };
            let state = layer.open(&Client::local(name)).wait().unwrap();
            let opened = Blocks::open(Arc::new(OnDisk(state)), true);
            let opened = opened.unwrap_or_else(|e| panic!("seed {seed}: {name}: {e}"));
            for (block, bytes) in &written {
                let at_least = sure.get(block).copied().unwrap_or(0);
                match sectors(&opened, *block) {
                    None => assert_eq!(at_least, 0, "seed {seed}: {name}: block {block} is lost"),
                    Some(there) if at_least > 0 => {
                        let allowed = &bytes[at_least - 1..];
                        let right = there.iter().all(|byte| allowed.contains(byte));
                        assert!(right, "seed {seed}: {name}: block {block}: {there:?}, not of {allowed:?}");
                    }
                    // Never synced: any sector may be missing, but the store opens.
                    Some(_) => {}
                }
            }
            tried += 1;
        }
    }
    assert!(tried > 300, "{tried}");
}
