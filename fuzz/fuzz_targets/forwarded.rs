//! What a proxy says of where a request came from: whatever a client wrote before it, the last word is
//! the proxy's.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use tidegate::config::ProxyHeader;
use tidegate::http::fuzzing::client_address;

fuzz_target!(|data: (IpAddr, &str)| {
    let (client, said) = data;
    let proxy = IpAddr::from([10, 0, 0, 1]);
    let is_proxy = matches!(client.to_canonical(), IpAddr::V4(v4) if v4.octets()[0] == 10);
    let node = if client.is_ipv6() { format!("[{client}]") } else { client.to_string() };
    for (header, hop) in [(ProxyHeader::XForwarded, node.clone()), (ProxyHeader::Forwarded, format!("for=\"{node}\";proto=https"))] {
        // Nobody else is believed, whatever he says.
        let stranger = IpAddr::from([203, 0, 113, 9]);
        let Some(found) = client_address(stranger, header, said) else { return };
        assert_eq!(found, stranger);
        // What a client writes is its own invention; what the proxy adds is not.
        for before in [said.to_owned(), format!("{said}, 192.0.2.1"), format!("{said}, unknown")] {
            let Some(found) = client_address(proxy, header, &format!("{before}, {hop}")) else { return };
            assert!(is_proxy || found == client, "{before:?} makes {client} into {found}");
        }
    }
});
