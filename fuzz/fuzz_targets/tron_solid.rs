//! `wallet/getnodeinfo`: a solid block that is let through reads the same again as a node would print it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_chain::tron::fuzzing::solid;

fuzz_target!(|data: &[u8]| {
    let Ok(Some((number, hash))) = solid(data) else { return };
    let printed = format!(r#"{{"solidityBlock":"Num:{number},ID:{hash}"}}"#);
    assert_eq!(solid(printed.as_bytes()).ok().flatten(), Some((number, hash)));
});
