// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// A token of ours that behaves like Tether's USDT on Ethereum, for tests only.
///
/// What it keeps of the original, because wallets and gateways stumble over it: `transfer`,
/// `transferFrom` and `approve` return nothing; the owner can pause it; a blacklisted sender
/// cannot send, but a blacklisted address can still receive; `issue` emits no Transfer.
/// What it adds: `emitOdd`, which logs what no honest token would.
contract TestTether {
    string public constant name = "Tether USD";
    string public constant symbol = "USDT";
    uint8 public immutable decimals;

    address public immutable owner;
    uint256 public totalSupply;
    bool public paused;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;
    mapping(address => bool) public isBlackListed;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);
    event Issue(uint256 amount);
    event Pause();
    event Unpause();
    event AddedBlackList(address user);
    event RemovedBlackList(address user);

    modifier onlyOwner() {
        require(msg.sender == owner);
        _;
    }

    constructor(uint256 supply, uint8 decimals_) {
        owner = msg.sender;
        decimals = decimals_;
        totalSupply = supply;
        balanceOf[msg.sender] = supply;
    }

    function transfer(address to, uint256 value) external {
        move(msg.sender, to, value);
    }

    function transferFrom(address from, address to, uint256 value) external {
        uint256 allowed = allowance[from][msg.sender];
        if (allowed != type(uint256).max) {
            allowance[from][msg.sender] = allowed - value;
        }
        move(from, to, value);
    }

    function approve(address spender, uint256 value) external {
        // Tether's own: a standing allowance must be set to zero before it is changed.
        require(value == 0 || allowance[msg.sender][spender] == 0);
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
    }

    function issue(uint256 amount) external onlyOwner {
        totalSupply += amount;
        balanceOf[owner] += amount;
        emit Issue(amount);
    }

    function pause() external onlyOwner {
        paused = true;
        emit Pause();
    }

    function unpause() external onlyOwner {
        paused = false;
        emit Unpause();
    }

    function addBlackList(address user) external onlyOwner {
        isBlackListed[user] = true;
        emit AddedBlackList(user);
    }

    function removeBlackList(address user) external onlyOwner {
        isBlackListed[user] = false;
        emit RemovedBlackList(user);
    }

    /// Logs the Transfer topic in shapes that cannot be read as a transfer: too few topics, too
    /// many topics, data cut short, a dirty address word. No balance moves.
    function emitOdd(address to) external {
        bytes32 topic = keccak256("Transfer(address,address,uint256)");
        bytes32 dirty = bytes32(uint256(uint160(to)) | (uint256(0x41) << 160));
        assembly {
            mstore(0, 1000000)
            log1(0, 32, topic)
            log4(0, 0, topic, caller(), to, 1000000)
            log3(0, 31, topic, caller(), to)
            log3(0, 32, topic, caller(), dirty)
        }
    }

    function move(address from, address to, uint256 value) private {
        require(!paused);
        require(!isBlackListed[from]);
        balanceOf[from] -= value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
    }
}
