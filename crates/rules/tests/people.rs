//! The table of who may do what, cell by cell.

#![allow(missing_docs, reason = "tests")]

use tidegate_rules::people::{Permission, Role, UserStatus};

/// x: may; ·: may not; !: may, after a second factor.
const TABLE: &str = "
                        owner  operator  support  viewer
    orders.read         x      x         x        x
    orders.write        x      x         x        ·
    all_orders.read     x      x         x        x
    all_orders.write    x      x         x        ·
    transactions.read   x      x         x        x
    wallets.read        x      x         x        x
    wallets.write       x      x         ·        ·
    wallets.import      !      !         ·        ·
    alerts.read         x      x         x        x
    alerts.write        x      x         x        ·
    audit.read          x      x         ·        ·
    metrics.read        x      x         ·        ·
    merchants.read      x      x         x        x
    merchants.write     !      ·         ·        ·
    keys.read           x      x         ·        ·
    keys.write          !      ·         ·        ·
    users.read          x      x         ·        ·
    users.write         !      ·         ·        ·
    everything          x      ·         ·        ·";

#[test]
fn every_cell_of_the_table() {
    let mut lines = TABLE.lines().map(str::trim).filter(|line| !line.is_empty());
    let roles: Vec<Role> = lines.next().unwrap().split_whitespace().map(|name| Role::from_name(name).unwrap()).collect();
    assert_eq!(roles, Role::ALL);
    let mut said = Vec::new();
    for line in lines {
        let mut cells = line.split_whitespace();
        let permission = Permission::from_name(cells.next().unwrap()).unwrap_or_else(|| panic!("{line}"));
        said.push(permission);
        for (role, cell) in roles.iter().zip(cells.by_ref()) {
            let found = match (role.may(permission), permission.needs_proof()) {
                (true, true) => "!",
                (true, false) => "x",
                (false, _) => "·",
            };
            assert_eq!(found, cell, "{} of {}", permission.name(), role.name());
        }
        assert_eq!(cells.next(), None, "{line}");
    }
    assert_eq!(said, Permission::ALL, "every permission has a line");
}

#[test]
fn names_read_back() {
    for role in Role::ALL {
        assert_eq!(Role::from_name(role.name()), Some(*role));
    }
    for status in UserStatus::ALL {
        assert_eq!(UserStatus::from_name(status.name()), Some(*status));
    }
    assert_eq!(Role::from_name("Owner"), None);
}
