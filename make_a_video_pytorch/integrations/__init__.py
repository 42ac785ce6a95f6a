"""The U-Net inside other libraries, one file a library; each says what to install (floor 5)."""
