"""The gRPC service: messages of the contract, checked and translated."""
