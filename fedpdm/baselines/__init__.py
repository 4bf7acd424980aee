"""What a federated model is compared with."""
