// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// A look-alike: the name, symbol and decimals of USDT at another address. Everybody may send as
/// much as he likes, because nothing of it is worth anything.
contract FakeTether {
    string public constant name = "Tether USD";
    string public constant symbol = "USDT";
    uint8 public constant decimals = 6;

    event Transfer(address indexed from, address indexed to, uint256 value);

    function balanceOf(address) external pure returns (uint256) {
        return type(uint256).max;
    }

    function transfer(address to, uint256 value) external {
        emit Transfer(msg.sender, to, value);
    }

    /// Claims that anybody paid anybody anything.
    function shout(address from, address to, uint256 value) external {
        emit Transfer(from, to, value);
    }
}
