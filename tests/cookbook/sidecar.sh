# needs: nft python3
