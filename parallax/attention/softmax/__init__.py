"""Softmax attention: o_i = sum_j softmax_j(q_i . k_j / sqrt(E)) v_j over the keys a query may see."""
