//! The networks that are known by name. A preset activates nothing: it only fills in what a table
//! of its name leaves out.
//!
//! Chain ids, token contracts and decimals are those of the Uniswap and Optimism token lists, the
//! TRON documentation and viem's chain list; `check` compares them with the chain before use.
//!
//! Confirmations:
//! - TRON: a block is solid once 19 of the 27 super representatives have built on it.
//! - Ethereum: 12 is what merchants and exchanges ask for; since proof of stake, reorganisations
//!   are nearly always one block deep.
//! - BSC and Polygon reach finality within seconds (fast finality, milestones), and Avalanche
//!   accepts a block for good within a second or two, so waiting for it costs nothing.
//! - Arbitrum: 300, as Circle asks for USDC; Optimism and Base: 30 blocks, one minute. There,
//!   `final` means final on Ethereum, 10 to 20 minutes later: good for a confirmation tier.
//!
//! The final head is normally a minute behind on TRON (19 of 27 super representatives), 13 to 20
//! minutes on Ethereum (two epochs), seconds on BSC, Polygon and Avalanche, and 10 to 30 minutes on
//! roll-ups. Where it is much further behind, blocks above it are not to be trusted.
//!
//! A poll interval is the block time, at least 2 s and at most 4 s, to be seen well within 30 s.

use tidegate_rules::order::Depth;
use tidegate_rules::time::Span;

use super::Kind;

/// What is known of a network.
pub(super) struct Preset {
    pub(super) name: &'static str,
    pub(super) display_name: &'static str,
    pub(super) kind: Kind,
    pub(super) chain_id: u64,
    /// `None` where there is no USDT that everybody means.
    pub(super) token: Option<&'static str>,
    pub(super) decimals: Option<u8>,
    pub(super) confirmations: Depth,
    pub(super) poll_interval: Span,
    /// How far its final head is behind at most while all is well, with room to spare.
    pub(super) final_lag_max: Span,
}

const PRESETS: [Preset; 11] = [
    tron("tron", "TRON", 728_126_428, "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"),
    tron("nile", "TRON Nile (test)", 3_448_148_188, "TXYZopYRdj2D9XRtbG411XZZ3kM5VkAeBf"),
    tron("shasta", "TRON Shasta (test)", 2_494_104_990, "TG3XXyExBkPp9nzdajDZsozEu4BkaSJozs"),
    Preset {
        poll_interval: Span::from_secs(4),
        final_lag_max: Span::from_secs(45 * 60),
        ..evm("ethereum", "Ethereum", 1, "0xdAC17F958D2ee523a2206206994597C13D831ec7")
    },
    Preset {
        token: None,
        decimals: None,
        poll_interval: Span::from_secs(4),
        final_lag_max: Span::from_secs(45 * 60),
        ..evm("sepolia", "Sepolia (test)", 11_155_111, "")
    },
    // Binance-Peg, with 18 decimals.
    Preset {
        decimals: Some(18),
        confirmations: Depth::Final,
        final_lag_max: Span::from_secs(10 * 60),
        ..evm("bsc", "BNB Smart Chain", 56, "0x55d398326f99059fF775485246999027B3197955")
    },
    Preset {
        confirmations: Depth::Final,
        final_lag_max: Span::from_secs(10 * 60),
        ..evm("polygon", "Polygon", 137, "0xc2132D05D31c914a87C6611C10748AEb04B58e8F")
    },
    Preset { confirmations: Depth::Blocks(300), ..evm("arbitrum", "Arbitrum One", 42_161, "0xFd086bC7CD5C481DCC9C85ebE478A1C0b69FCbb9") },
    // The bridged token that most wallets hold. The newer USDT0 has an address of its own.
    Preset { confirmations: Depth::Blocks(30), ..evm("optimism", "OP Mainnet", 10, "0x94b008aA00579c1307B0EF2c499aD98a8ce58e58") },
    Preset {
        confirmations: Depth::Final,
        final_lag_max: Span::from_secs(10 * 60),
        ..evm("avalanche", "Avalanche C-Chain", 43_114, "0x9702230A8Ea53601f5cD2dc00fDBc13d4dF4A8c7")
    },
    Preset { confirmations: Depth::Blocks(30), ..evm("base", "Base", 8_453, "0xfde4C96c8593536E31F229EA8f37b2ADa2699bb2") },
];

const fn tron(name: &'static str, display_name: &'static str, chain_id: u64, token: &'static str) -> Preset {
    Preset {
        name,
        display_name,
        kind: Kind::Tron,
        chain_id,
        token: Some(token),
        decimals: Some(6),
        confirmations: Depth::Blocks(19),
        poll_interval: Span::from_secs(3),
        final_lag_max: Span::from_secs(5 * 60),
    }
}

const fn evm(name: &'static str, display_name: &'static str, chain_id: u64, token: &'static str) -> Preset {
    Preset {
        name,
        display_name,
        kind: Kind::Evm,
        chain_id,
        token: Some(token),
        decimals: Some(6),
        confirmations: Depth::Blocks(12),
        poll_interval: Span::from_secs(2),
        final_lag_max: Span::from_secs(2 * 3_600),
    }
}

/// The preset of that name.
pub(super) fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// The preset that a name was perhaps meant to be.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let differing = |preset: &&str| strsim::damerau_levenshtein(preset, &name);
    PRESETS.iter().map(|preset| preset.name).min_by_key(differing).filter(|preset| differing(preset) <= 2)
}

/// All names, for a sentence.
pub(super) fn names() -> String {
    PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ")
}

/// The chains whose USDT is worth money: those of the presets that are no testnets.
pub(super) const LIVE_CHAINS: [u64; 8] = [728_126_428, 1, 56, 137, 42_161, 10, 43_114, 8_453];
