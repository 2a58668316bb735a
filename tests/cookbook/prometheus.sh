# needs: prometheus promtool
says 9001 shop
