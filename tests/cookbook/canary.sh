says 9001 'shop v1'
says 9003 'shop v2'
