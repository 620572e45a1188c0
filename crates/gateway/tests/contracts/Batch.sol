// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

interface Token {
    function transfer(address to, uint256 value) external;
    function emitOdd(address to) external;
}

/// Pays from its own balance in ways that a plain wallet does not: many transfers in one
/// transaction, transfers that are taken back, and odd logs before an honest one.
contract Batch {
    /// Pays `values[i]` to `to[i]`, in order. An address may stand in the list several times.
    function pay(Token token, address[] calldata to, uint256[] calldata values) external {
        for (uint256 i = 0; i < to.length; i++) {
            token.transfer(to[i], values[i]);
        }
    }

    /// Pays, then reverts: the transaction fails and leaves no log.
    function payThenRevert(Token token, address to, uint256 value) external {
        token.transfer(to, value);
        revert("taken back");
    }

    /// The transaction succeeds, but the payment inside it was taken back and left no log.
    function payInVain(Token token, address to, uint256 value) external {
        try this.payThenRevert(token, to, value) {} catch {}
    }

    /// Four odd logs of the token, then an honest transfer: its ordinal is 4.
    function oddThenPay(Token token, address to, uint256 value) external {
        token.emitOdd(to);
        token.transfer(to, value);
    }
}
